"""PyTorch's `.pth` files without PyTorch, and without running what a pickle may ask for.

A pickle is a program. The reader knows the few names that a file of tensors needs and refuses every other.
"""

import collections
import io
import pickle
import zipfile

import ml_dtypes
import numpy as np

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
        raise ValueError(f"it holds a {type(state).__name__}, not tensors by name")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise ValueError(f"{name!r} in it is a {type(value).__name__}, not a tensor")
    return dict(state)


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and ordered dicts; `storages` finds a storage's values by its key."""

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) not in known:
            raise ValueError(f"it asks for {module}.{name}, which is no tensor")
        return known[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or dtype not in DTYPES.values():
            raise ValueError(f"it refers to {pid!r:.80}, which is no storage")
        return self.storages(str(key), np.dtype(dtype), size)


def _tensor(storage, offset, shape, strides, *_):
    """A copy of a part of a storage, which must lie inside it."""
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (np.prod(shape) and last >= storage.size):
        raise ValueError("a tensor in it reaches beyond its storage")
    bytes_ = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, bytes_, writeable=False).copy()


def _read_zip(path):
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise ValueError("it is no file of PyTorch: it has no data.pkl")
        folder = pickled.removesuffix("data.pkl")

        def storage(key, dtype, size):
            values = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
            if values.size < size:
                raise ValueError(f"its storage {key} is too short")
            return values

        return _Unpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _read_old(path):
    """Magic number, version, system, state dict, storages' keys, storages: the tensors come last."""
    storages = {}

    def storage(key, dtype, size):
        return storages.setdefault(key, np.empty(size, dtype))

    def load(file):
        return _Unpickler(file, storage).load()

    with open(path, "rb") as file:
        if load(file) != MAGIC:
            raise ValueError("it is no file of PyTorch")
        for _ in ("version", "system"):
            load(file)
        state = _Deferred(file, storage).load()
        for key in load(file):
            size = int.from_bytes(file.read(8), "little")
            target = storages[str(key)]
            if size != target.size:
                raise ValueError(f"its storage {key} has {size} values instead of {target.size}")
            values = np.frombuffer(file.read(target.nbytes), target.dtype)
            if values.size != size:
                raise EOFError("it ends too early")
            target[:] = values
    return _filled(state)


def _filled(value):
    if isinstance(value, dict):
        return {name: _filled(part) for name, part in value.items()}
    return value() if callable(value) else value


class _Deferred(_Unpickler):
    """Tensors as functions, for storages that are filled later."""

    def find_class(self, module, name):
        found = super().find_class(module, name)
        return (lambda *arguments: lambda: _tensor(*arguments)) if found is _tensor else found
