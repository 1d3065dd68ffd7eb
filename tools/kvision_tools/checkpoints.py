"""Checkpoints that hold every variable by its path.

`tf.train.Checkpoint` of a Keras 3 model leaves out the seed generators of dropout and stochastic
depth; here a variable that is not saved or not restored is an error.
"""

import json
import os
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy

KEPT = 2


def save(folder: Path, step: int, model: keras.Model, optimizer, state: dict) -> None:
    """Writes `folder/step_N.safetensors`, whole or not at all, and drops all but the last two.

    Args:
        folder: made where it is missing.
        step: training steps so far.
        model: its variables, seed generators among them.
        optimizer: its variables.
        state: what else the run needs to go on; JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.asarray(v.numpy()) for name, v in _variables(model, optimizer).items()}
    path = folder / f"step_{step:08d}.safetensors"
    beside = path.with_suffix(".tmp")
    safetensors.numpy.save_file(tensors, beside, {"state": json.dumps(state)})
    os.replace(beside, path)
    for old in _paths(folder)[:-KEPT]:
        old.unlink()


def restore(folder: Path, model: keras.Model, optimizer) -> dict | None:
    """Puts the newest checkpoint's values into the variables and returns its state; None without one.

    Raises:
        ValueError: the checkpoint is of another network or optimizer.
    """
    paths = _paths(folder)
    if not paths:
        return None
    with safetensors.safe_open(paths[-1], "numpy") as file:
        variables = _variables(model, optimizer)
        if differ := variables.keys() ^ set(file.keys()):
            raise ValueError(
                f"{str(paths[-1])!r} is of another network or optimizer: {sorted(differ)[0]} differs."
            )
        for name, variable in variables.items():
            variable.assign(file.get_tensor(name))
        return json.loads(file.metadata()["state"])


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.safetensors"))


def _path(layer, variable) -> str:
    """The variable's path; a seed generator's own would count those that were made before it."""
    last = variable.path.rpartition("/")[2]
    return f"{layer.name}/{last}" if last == "seed_generator_state" else variable.path


def _variables(model, optimizer) -> dict:
    named = [(f"model/{_path(layer, v)}", v) for layer in model.layers for v in layer.variables]
    named += [("optimizer/" + v.path, v) for v in optimizer.variables]
    variables = dict(named)
    if len(variables) != len(named):
        raise ValueError("Two variables share a path, so a checkpoint cannot hold both.")
    return variables
