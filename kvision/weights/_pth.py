"""PyTorch's `.pth` files without PyTorch, and without running what a pickle may ask for.

A pickle is a program. The reader knows the few names that a file of tensors needs and refuses every other.
What it hands out for them cannot be changed from the file, and sizes are checked before memory is taken.
"""

import collections
import io
import math
import operator
import os
import pickle
import pickletools
import zipfile

import ml_dtypes
import numpy as np

from kvision.errors import UserError

DTYPES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}  # fmt: skip
MAGIC = 0x1950A86A20F9469CFC6C  # of files older than PyTorch 1.6


def read_pth(path: str) -> dict[str, np.ndarray]:
    """The tensors of a state dict that PyTorch saved, by name, in either of its formats.

    Raises:
        ValueError: the file holds anything but tensors by name; the message names it.
        OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError: no such file, or a damaged one.
    """
    state = _read_zip(path) if zipfile.is_zipfile(path) else _read_old(path)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise UserError(f"it holds a {type(state).__name__}, not tensors by name")
    tensors = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise UserError(f"{name!r} in it is a {type(value).__name__}, not a tensor")
        tensors[name] = value.array()
    return tensors


class _Tensor:
    """A part of a storage, which may be filled later."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage, offset, shape, strides, *_):
        if not isinstance(storage, np.ndarray):
            raise UserError("a tensor in it has no storage")
        self.storage, self.offset = storage, operator.index(offset)
        self.shape, self.strides = (tuple(map(operator.index, part)) for part in (shape, strides))

    def array(self) -> np.ndarray:
        """A copy of the values; a ValueError where they would lie outside the storage."""
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((side - 1) * stride for side, stride in steps)
        outside = 0 not in self.shape and last >= self.storage.size
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or outside:
            raise UserError("a tensor in it reaches beyond its storage")
        if math.prod(self.shape) > self.storage.size:
            raise UserError("a tensor in it has more values than its storage")
        part = self.storage[self.offset :]
        strides = [stride * part.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(part, self.shape, strides, writeable=False).copy()


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and ordered dicts; `storages` gives a storage by key, dtype and size."""

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        if module in ("torch", "torch.storage") and name in DTYPES:
            return name  # a word, which a pickle can neither call nor change
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _Tensor(*arguments),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) not in known:
            raise UserError(f"it asks for {module}.{name}, which is no tensor")
        return known[module, name]

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in DTYPES:
            raise UserError(f"it refers to {pid!r:.80}, which is no storage")
        return self.storages(str(pid[2]), np.dtype(DTYPES[pid[1]]), operator.index(pid[4]))


def _load(file, storages):
    """One pickle of a file. A memo index beyond the file's size would take memory without end."""
    start = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > size:
            raise UserError("its pickle counts beyond its size")
    file.seek(start)
    return _Unpickler(file, storages).load()


def _read_zip(path):
    storages = {}
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise UserError("it is no file of PyTorch: it has no data.pkl")
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise UserError("it is compressed, which PyTorch's files are not")
        folder = pickled.removesuffix("data.pkl")

        def storage(key, dtype, size):
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
            if storages[key].size < size:
                raise UserError(f"its storage {key} is too short")
            return storages[key]

        return _load(io.BytesIO(archive.read(pickled)), storage)


def _read_old(path):
    """Magic number, version, system, state dict, storages' keys, storages: the values come last."""
    storages = {}

    def storage(key, dtype, size):
        if not 0 <= size * dtype.itemsize <= os.path.getsize(path):
            raise UserError(f"its storage {key} is larger than the file")
        return storages.setdefault(key, np.empty(size, dtype))

    with open(path, "rb") as file:
        if _load(file, storage) != MAGIC:
            raise UserError("it is no file of PyTorch")
        for _ in ("version", "system"):
            _load(file, storage)
        state = _load(file, storage)
        for key in _load(file, storage):
            size = int.from_bytes(file.read(8), "little")
            target = storages[str(key)]
            if size != target.size:
                raise UserError(f"its storage {key} has {size} values instead of {target.size}")
            values = np.frombuffer(file.read(target.nbytes), target.dtype)
            if values.size != size:
                raise EOFError("it ends too early")
            target[:] = values
    return state
