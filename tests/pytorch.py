"""Files as PyTorch writes them, without PyTorch: pickles put together by hand."""

import struct
import zipfile
from typing import NamedTuple

import numpy as np

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long", "int8": "Char"}


class Class(NamedTuple):
    """A class or function by its name."""

    name: str


class Call(NamedTuple):
    """The result of a class or function for its arguments; `state` are the attributes of an object."""

    name: str
    arguments: tuple = ()
    state: dict | None = None


def pickled(value, storages: list) -> bytes:
    """A value without the two instructions around it; the arrays in it become tensors on new storages."""
    match value:
        case Class(name):
            return b"c%b\n%b\n" % tuple(name.encode().rpartition(b".")[::2])
        case Call(name, arguments, state):
            built = b"" if state is None else pickled(state, storages) + b"b"
            return pickled(Class(name), storages) + pickled(tuple(arguments), storages) + b"R" + built
        case np.ndarray():
            storages.append(np.asarray(value, order="C"))
            kind = Class(f"torch.{STORAGES[value.dtype.name]}Storage")
            reference = ("storage", kind, str(len(storages) - 1), "cpu", value.size)
            strides = tuple(stride // value.itemsize for stride in storages[-1].strides)
            return (
                pickled(Class("torch._utils._rebuild_tensor_v2"), storages) + b"("
                + pickled(reference, storages) + b"Q"
                + b"".join(pickled(part, storages) for part in (0, value.shape, strides, False))
                + pickled(Call("collections.OrderedDict"), storages) + b"tR"
            )  # fmt: skip
        case dict():
            items = (pickled(part, storages) for item in value.items() for part in item)
            return b"}(" + b"".join(items) + b"u"
        case tuple():
            return b"(" + b"".join(pickled(part, storages) for part in value) + b"t"
        case list():
            return b"](" + b"".join(pickled(part, storages) for part in value) + b"e"
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"I%d\n" % value
        case float():
            return b"G" + struct.pack(">d", value)
        case None:
            return b"N"
    raise TypeError(type(value))


def write_pth(path, value) -> None:
    """Writes what `torch.save` writes."""
    storages = []
    content = b"\x80\x02" + pickled(value, storages) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/byteorder", "little")
        for key, values in enumerate(storages):
            archive.writestr(f"net/data/{key}", values.tobytes())
        archive.writestr("net/version", "3\n")


def write_old_pth(path, value) -> None:
    """Writes what `torch.save` wrote before PyTorch 1.6."""
    storages = []
    system = {"protocol_version": 1001, "little_endian": True}
    values = [0x1950A86A20F9469CFC6C, 1001, system, value]
    content = b"".join(b"\x80\x02" + pickled(value, storages) + b"." for value in values)
    content += b"\x80\x02" + pickled([str(key) for key in range(len(storages))], []) + b"."
    with open(path, "wb") as file:
        file.write(content)
        for values in storages:
            file.write(struct.pack("<q", values.size) + values.tobytes())
