"""Keras' `.weights.h5` and `.keras` files, read by the names of their layers.

No network is built from them, and they lead nowhere out of the file.
"""

import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping

import h5py
import keras
import ml_dtypes
import numpy as np

from kvision.errors import UserError
from kvision.weights._archive import open_archive, read_entry
from kvision.weights._parameters import parameters

WEIGHTS = "model.weights.h5"  # in a .keras file
VARIABLES = "vars"  # the group of a layer's own variables, which bears the layer's name


def read_h5(path: str) -> dict[str, np.ndarray]:
    """The variables of a file that Keras 3 saved, by the layer's path and their place: "stem.conv/0".

    Raises:
        UserError: it is no such file, points out of itself, or has values that it does not hold.
        OSError, KeyError, ValueError, zipfile.BadZipFile: it is damaged.
    """
    content = path
    if path.endswith(".keras"):
        with open_archive(path) as archive:
            if WEIGHTS not in archive.namelist():
                raise UserError(f"it has no {WEIGHTS}")
            entries = {name: read_entry(archive, name) for name in archive.namelist()}
            content = io.BytesIO(entries[WEIGHTS])
    tensors, left, seen = {}, os.path.getsize(path), set()
    with h5py.File(content, "r") as file:
        if "layers" not in file:
            raise UserError("it has no layers as Keras 3 writes them")
        for name, dataset in _variables(_child(file, "layers"), (), seen):
            left -= dataset.nbytes
            if left < 0:
                raise UserError("its values take more bytes than the file has")
            values = np.asarray(dataset[()])
            halves = dataset.attrs.get("dtype") == "bfloat16"
            tensors[name] = values.view(ml_dtypes.bfloat16) if halves else values
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


def _variables(group: h5py.Group, path: tuple[str, ...], seen: set) -> Iterator[tuple[str, h5py.Dataset]]:
    """The variables of the layers in a group, those of their own layers too."""
    for key in group:
        layer = _child(group, key)
        address = h5py.h5o.get_info(layer.id).addr
        if address in seen or not isinstance(layer, h5py.Group):
            raise UserError(f"its {layer.name!r} is no layer of its own")
        seen.add(address)
        if key == "layers":  # of a network in the network, whose name is no part of its variables' paths
            yield from _variables(layer, (), seen)
        elif key != VARIABLES and not key.startswith("seed_generator"):
            variables = _child(layer, VARIABLES) if VARIABLES in layer else {}
            names = *path, str(variables.attrs.get("name", key) if variables else key)
            for place in variables:
                yield f"{'/'.join(names)}/{place}", _dataset(_child(variables, place))
            yield from _variables(layer, names, seen)


def _child(group: h5py.Group, key: str):
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise UserError(f"its {key!r} is a link to elsewhere")
    return group[key]


def _dataset(dataset) -> h5py.Dataset:
    """The dataset, if all of its values lie in the file."""
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.external
        or dataset.is_virtual
        or dataset.chunks
        or dataset.dtype.kind not in "fiubV"
        or dataset.dtype.names
        or dataset.id.get_storage_size() != dataset.nbytes
    ):
        raise UserError(f"its {dataset.name!r} is compressed, incomplete, or no array of numbers")
    return dataset
