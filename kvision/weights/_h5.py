"""Keras' `.weights.h5` and `.keras` files, read by the names of their layers.

No network is built from them, and they lead nowhere out of the file.
"""

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import keras
import ml_dtypes
import numpy as np

from kvision.errors import UserError
from kvision.weights import _h5_index
from kvision.weights._archive import open_archive, read_entry
from kvision.weights._parameters import parameters

WEIGHTS = "model.weights.h5"  # in a .keras file


def read_h5(path: str) -> dict[str, np.ndarray]:
    """The variables of a file that Keras 3 saved, by the layer's path and their place: "stem.conv/0".

    Raises:
        UserError: the file has another form, links to other files, or lacks values.
        OSError, ValueError, zipfile.BadZipFile: it is damaged.
    """
    content = _keras_weights(path) if path.lower().endswith(".keras") else Path(path).read_bytes()
    tensors, left = {}, len(content)
    for name, (dtype, shape, offset) in _index(content).items():
        dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        size = math.prod(shape)
        left -= size * dtype.itemsize
        if left < 0:
            raise UserError("its values take more bytes than the file has")
        tensors[name] = np.frombuffer(content, dtype, size, offset).reshape(shape)
    return tensors


def by_reference_names(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables of `read_h5` by a network's reference names and in their layout; others as they are."""
    named, place = dict(tensors), Counter()
    for name, (variable, axes, _) in parameters(model).items():
        layer = variable.path.rpartition("/")[0]
        key = f"{layer}/{place[layer]}"
        place[layer] += 1
        if key in named:
            tensor = named.pop(key)
            named[name] = np.transpose(tensor, axes) if tensor.ndim == len(axes) else tensor
    return named


def _keras_weights(path: str) -> bytes:
    """The weights of a `.keras` file, after the checksums of all that is in it."""
    with open_archive(path) as archive:
        if WEIGHTS not in archive.namelist():
            raise UserError(f"it has no {WEIGHTS}")
        return {name: read_entry(archive, name) for name in archive.namelist()}[WEIGHTS]


def _index(content: bytes) -> dict[str, list]:
    """The answer of `_h5_index`, which runs in a process of its own because the HDF5 library may crash."""
    command = [sys.executable, "-P", _h5_index.__file__]
    try:
        done = subprocess.run(command, input=content, capture_output=True, check=True)
        answer = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        raise UserError("it is damaged so that the HDF5 library fails") from None
    if isinstance(answer, str):
        raise UserError(answer)
    return answer
