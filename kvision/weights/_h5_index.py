"""The places of the variables in an HDF5 file: a script, which reads the file from stdin.

The HDF5 library crashes on some damaged files, and in others never gets through a heap of words whose sizes
are wrong. This process may crash, or ends itself, and its parent says so in a sentence. It prints
JSON: `{"LAYER/PLACE": [dtype, shape, offset]}` of layers as Keras 3 saves them, or a sentence.
"""

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import h5py

SECONDS, BYTES_A_SECOND = 3, 2**23  # of the processor; a second goes through 6,000 variables
VARIABLES = "vars"  # the group of a layer's own variables, which bears the layer's name


class Unfit(Exception):
    """The file is not what Keras writes."""


def index(content: bytes) -> dict[str, list]:
    """The dtype, shape and offset of each variable, by the layer's path and its place in the layer."""
    with h5py.File(io.BytesIO(content), "r") as file:
        if file.userblock_size or "layers" not in file:
            raise Unfit("it has no layers as Keras 3 writes them")
        return {name: _place(dataset) for name, dataset in _variables(_child(file, "layers"), (), set())}


def _variables(group, path: tuple[str, ...], seen: set) -> Iterator[tuple[str, h5py.Dataset]]:
    """The variables of the layers in a group, those of their own layers too."""
    for key in group:
        layer = _child(group, key)
        address = h5py.h5o.get_info(layer.id).addr
        if address in seen or not isinstance(layer, h5py.Group):
            raise Unfit(f"its {layer.name!r} is not a layer of its own")
        seen.add(address)
        if key == "layers":  # of a network in the network, whose name is not part of its variables' paths
            yield from _variables(layer, (), seen)
        elif key != VARIABLES and not key.startswith("seed_generator"):
            variables: Any = _child(layer, VARIABLES) if VARIABLES in layer else {}
            names = *path, str(variables.attrs.get("name", key) if variables else key)
            for place in variables:
                yield f"{'/'.join(names)}/{place}", _child(variables, place)
            yield from _variables(layer, names, seen)


def _child(group, key: str) -> Any:
    if not isinstance(group, h5py.Group) or not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise Unfit(f"its {key!r} is a link to elsewhere")
    return group[key]


def _place(dataset) -> list:
    """The offset of a dataset's values, if all of them lie in the file."""
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.external
        or dataset.is_virtual
        or dataset.chunks
        or dataset.dtype.kind not in "fiubV"
        or dataset.dtype.names
        or dataset.id.get_storage_size() != dataset.nbytes
        or dataset.id.get_offset() is None
    ):
        raise Unfit(f"its {dataset.name!r} is compressed, incomplete, or no array of numbers")
    dtype = "bfloat16" if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype.str
    return [dtype, dataset.shape, dataset.id.get_offset()]


def _limit(size: int) -> None:
    """Ends this process when a file of so many bytes takes more of the processor than any sound one."""
    with contextlib.suppress(ImportError):  # on Windows
        import resource

        seconds = int(time.process_time()) + SECONDS + size // BYTES_A_SECOND
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    try:
        content = sys.stdin.buffer.read()
        _limit(len(content))
        answer = index(content)
    except Exception as error:  # whatever a damaged file makes the library raise
        answer = str(error)
    print(json.dumps(answer))
