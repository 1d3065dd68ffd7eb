"""Checkpoints that hold every variable by its path.

`tf.train.Checkpoint` of a Keras 3 model leaves out the seed generators of dropout and stochastic
depth; here a variable that is not saved or not restored is an error.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from kvision.errors import UserError

KEPT = 2


def save(folder: Path, step: int, loop, state: dict) -> None:
    """Writes `folder/step_N.safetensors`, whole or not at all, and drops all but the last two.

    Args:
        folder: made where it is missing.
        step: training steps so far.
        loop: the `Loop` whose model, optimizer and own variables are written, seed generators among them.
        state: what else the run needs to go on; JSON.

    Raises:
        OSError: the disk is full, or the like; the checkpoints that were there are still good.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.asarray(v.numpy()) for name, v in _variables(loop).items()}
    path = folder / f"step_{step:08d}.safetensors"
    beside = path.with_suffix(".tmp")
    try:
        with open(beside, "wb") as file:
            file.write(safetensors.numpy.save(tensors, {"state": json.dumps(state)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"The checkpoint {str(path)!r} cannot be written: {error.strerror}.") from None
    for old in _paths(folder)[:-KEPT]:
        old.unlink()


def restore(folder: Path, loop) -> dict | None:
    """Puts the newest checkpoint's values into the variables and returns its state; None without one.

    A file that is damaged is passed over for the one before it, and named on stderr.

    Raises:
        ValueError: the checkpoint is of another network or optimizer, or none can be read.
    """
    paths = _paths(folder)
    for path in reversed(paths):
        try:
            with safetensors.safe_open(path, "numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                state = json.loads(file.metadata()["state"])
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            print(f"{str(path)!r} is damaged ({error}).", file=sys.stderr)
            continue
        variables = _variables(loop)
        if differ := variables.keys() ^ tensors.keys():
            raise UserError(f"{str(path)!r} is of another network or optimizer: {sorted(differ)[0]} differs.")
        for name, variable in variables.items():
            variable.assign(tensors[name])
        return state
    if paths:
        raise UserError(f"No checkpoint in {str(folder)!r} can be read.")
    return None


def not_finite(loop) -> str:
    """The name of a variable that holds a NaN or an infinity; "" for none."""
    values = ((name, v.numpy()) for name, v in _variables(loop).items())
    return next((n for n, v in values if v.dtype.kind == "f" and not np.isfinite(v).all()), "")


def newest(folder: Path) -> str:
    """The name of the newest checkpoint; "" for none."""
    return paths[-1].name if (paths := _paths(folder)) else ""


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.safetensors"))


def _path(layer, variable) -> str:
    """The variable's path; a seed generator's own would count those that were made before it."""
    last = variable.path.rpartition("/")[2]
    return f"{layer.name}/{last}" if last == "seed_generator_state" else variable.path


def _variables(loop) -> dict:
    named = [(f"model/{_path(layer, v)}", v) for layer in loop.model.layers for v in layer.variables]
    named += [("optimizer/" + v.path, v) for v in loop.optimizer.variables]
    named += [("loop/" + name, v) for name, v in loop.variables.items()]
    variables = dict(named)
    if len(variables) != len(named):
        raise ValueError("Two variables share a path, so a checkpoint cannot hold both.")
    return variables
