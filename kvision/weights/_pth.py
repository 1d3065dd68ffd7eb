"""PyTorch's files (`.pth`, `.pt`, `.bin`, `.ckpt`) without PyTorch: of today, and of before 1.6."""

import functools
import io
import mmap
import zipfile

import numpy as np

from kvision.errors import UserError
from kvision.weights import _pickle
from kvision.weights._archive import open_archive, read_entry

MAGIC = 0x1950A86A20F9469CFC6C  # of files older than PyTorch 1.6


def read_pth(path: str) -> dict:
    """The contents of a file of PyTorch: tensors by name, or such dicts by name beside other things.

    Tensors are read when they become arrays. No code of the file is run, see `_pickle.load`.

    Raises:
        UserError: the file holds no dict, or is not PyTorch's; the message says what it is.
        OSError, EOFError, zipfile.BadZipFile: no such file, or a damaged one.
    """
    state = _read_zip(path) if zipfile.is_zipfile(path) else _read_old(path)
    if isinstance(state, _pickle.Unknown):
        raise UserError(
            f"it holds a whole model, or another object, of class {state.kind}; save its `state_dict()`"
        )
    if not isinstance(state, dict):
        raise UserError(f"it holds a {type(state).__name__.lower()}, not tensors by name")
    return state


def _read_zip(path):
    archive = open_archive(path)  # stays open for the tensors
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError("it was not saved by PyTorch: one data.pkl was expected in it")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and read_entry(archive, f"{folder}byteorder") != b"little":
        raise UserError("it was saved on a computer with another order of bytes")
    contents = {}

    def values(storage):
        if storage.key not in contents:
            contents[storage.key] = read_entry(archive, f"{folder}data/{storage.key}")
        content = contents[storage.key]
        if len(content) // storage.dtype.itemsize < storage.size:
            raise UserError(f"its storage {storage.key!r:.80} is too short")
        return np.frombuffer(content, storage.dtype, storage.size)

    pickled = io.BytesIO(read_entry(archive, pickles[0]))
    return _pickle.load(pickled, functools.partial(_pickle.Storage, values=values))


def _read_old(path):
    """Magic number, version, system, state dict, storages' keys, storages: the values come last."""
    known, places = {}, {}

    def values(storage):
        if storage.key not in places:
            raise UserError(f"its storage {storage.key!r:.80} is missing")
        return np.frombuffer(content, storage.dtype, storage.size, places[storage.key])

    def storage(*fields):
        made = _pickle.Storage(*fields, values=values)
        if known.setdefault(made.key, made) != made:
            raise UserError(f"its storage {made.key!r:.80} is described in two ways")
        return made

    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if content[:4] == b"PK\3\4":  # the head of an archive, whose end is missing
        raise EOFError("it ends too early")
    try:
        magic = _pickle.load(content, storage)
    except Exception:
        magic = None
    if magic != MAGIC:
        raise UserError("it was not saved by PyTorch")
    _, system, state, keys = (_pickle.load(content, storage) for _ in range(4))
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise UserError("it was saved on a computer with another order of bytes")
    for key in keys:
        size = int.from_bytes(content.read(8), "little")
        if key not in known or key in places or size != known[key].size:
            raise UserError(f"its storage {key!r:.80} is not the one that its tensors have")
        places[key] = content.tell()
        end = places[key] + size * known[key].dtype.itemsize
        if end > len(content):
            raise EOFError("it ends too early")
        content.seek(end)
    return state
