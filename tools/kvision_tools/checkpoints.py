"""Checkpoints that hold every variable by its path.

`tf.train.Checkpoint` of a Keras 3 model leaves out the seed generators of dropout and stochastic
depth; here a variable that is not saved or not restored is an error.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from kvision.errors import UserError, naming
from kvision.files import replacing

KEPT = 2


class Unfit(Exception):
    """Reason why a checkpoint cannot be restored."""


def save(folder: Path, step: int, loop, state: dict) -> None:
    """Writes `folder/step_N.safetensors`, whole or not at all, and keeps the one before it alone.

    Args:
        folder: folder of the checkpoints, made where it is missing.
        step: number of training steps so far.
        loop: the `Loop` whose model, optimizer and own variables are written, seed generators among them.
        state: JSON values besides that the run needs to go on.

    Raises:
        OSError: the disk is full, or the like; the checkpoints that were there are still good.
    """
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.asarray(v.numpy()) for name, v in _variables(loop).items()}
    text = json.dumps(state)
    metadata = {"state": text, "blake2b": _digest(tensors, text)}
    path = folder / name_of(step)
    with replacing(path) as tmp_path:
        tmp_path.write_bytes(safetensors.numpy.save(tensors, metadata))
    before = [other for other in _paths(folder) if other < path]
    kept = {
        path,
        *before[1 - KEPT :],
    }  # later ones were passed over, as the run is behind them
    for old in folder.iterdir():
        if old not in kept and re.fullmatch(r"step_\d+\.(safetensors|tmp)|\.step_\d+\.tmp", old.name):
            old.unlink()


def restore(folder: Path, loop, like: dict | None = None) -> dict | None:
    """Puts the newest good checkpoint's values into the variables and returns its state; None without any.

    A file that cannot be restored is passed over for the one before it, and named on stderr with what is
    wrong: it is damaged, which its checksum shows, holds NaN or infinity, or is of another network.

    Args:
        folder: folder of the checkpoints.
        loop: the `Loop` whose variables are set.
        like: a state whose keys and types the restored one must have, and the lengths of its lists, but of
            empty ones; it may have other keys besides.

    Raises:
        ValueError: there are checkpoints, but none is good; or one of them is a folder, which no later one
            can replace.
    """
    paths = _paths(folder)
    for path in paths:
        if path.is_dir():
            raise UserError(f"{str(path)!r} is a folder in place of a checkpoint: move it away.")
    variables, faults = _variables(loop), []
    for path in reversed(paths):
        try:
            tensors, state = _read(path)
            _check(tensors, state, variables, like)
        except Unfit as fault:
            faults.append(f"{str(path)!r} {fault}")
            continue
        for name, variable in variables.items():
            variable.assign(tensors[name])
        for fault in faults:
            print(f"{fault}; going on from {path.name}, the one before.", file=sys.stderr)
        return state
    if paths:
        raise UserError(
            f"No checkpoint in {str(folder)!r} can be used: {'; '.join(faults)}. Put back a good copy, or "
            "start anew with `overwrite=True`."
        )
    return None


def not_finite(loop) -> str:
    """The name of a variable that holds a NaN or an infinity; "" for none."""
    return _not_finite({name: v.numpy() for name, v in _variables(loop).items()})


def name_of(step: int) -> str:
    """The name of the checkpoint after a step; the one after step 0 is saved before the first."""
    return f"step_{step:08d}.safetensors"


def newest(folder: Path) -> str:
    """The name of the newest checkpoint; "" for none."""
    return paths[-1].name if (paths := _paths(folder)) else ""


def _paths(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step_*") if re.fullmatch(r"step_\d+\.safetensors", p.name))


def _read(path):
    """The tensors and the state of a file that is what was once written."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["state"]
        if metadata.keys() != {"state"} and metadata.get("blake2b") != _digest(tensors, text):
            raise Unfit("is damaged: its checksum is not that of its content")  # earlier versions had none
        return tensors, json.loads(text)
    except OSError as error:
        raise Unfit(f"cannot be read ({error.strerror or error})") from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Unfit(f"is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]!r})") from None


def _check(tensors, state, variables, like):
    if differ := sorted(variables.keys() ^ tensors.keys()):
        raise Unfit(f"is of another network or optimizer: {differ[0]!r} differs")
    for name, variable in variables.items():
        here, there = [(tuple(v.shape), np.dtype(v.dtype).name) for v in (variable.numpy(), tensors[name])]
        if here != there:
            raise Unfit(f"is of another network or optimizer: {name!r} is {there} instead of {here}")
    if name := _not_finite(tensors):
        raise Unfit(f"holds NaN or infinity in {name!r}")
    if like is not None and not _alike(state, like):
        raise Unfit(f"has an incomplete state: {', '.join(like)} were expected")


def _alike(value, like) -> bool:
    """Whether a JSON value has at least the keys of another, its types, and the lengths of filled lists."""
    if type(value) is not type(like):
        return False
    if isinstance(like, dict):
        return value.keys() >= like.keys() and all(_alike(value[key], like[key]) for key in like)
    if isinstance(like, list) and like:
        return len(value) == len(like) and all(map(_alike, value, like))
    return True


def _not_finite(arrays) -> str:
    return next((n for n, a in arrays.items() if a.dtype.kind == "f" and not np.isfinite(a).all()), "")


def _digest(tensors, text) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def _names(layer) -> list[str]:
    """The paths of a layer's variables; a seed generator's own would count those that were made before it."""
    seeds, paths = 0, []
    for variable in layer.variables:
        last = variable.path.rpartition("/")[2]
        if last == "seed_generator_state":
            paths.append(f"{layer.name}/{last}" + (f"_{seeds}" if seeds else ""))
            seeds += 1
        else:
            paths.append(variable.path)
    return paths


def _variables(loop) -> dict:
    named = [
        (f"model/{path}", variable)
        for layer in loop.model.layers
        for path, variable in zip(_names(layer), layer.variables, strict=True)
    ]
    named += [("optimizer/" + v.path, v) for v in loop.optimizer.variables]
    named += [("loop/" + name, v) for name, v in loop.variables.items()]
    variables = dict(named)
    if len(variables) != len(named):
        raise ValueError("Two variables share a path, so a checkpoint cannot hold both.")
    return variables
