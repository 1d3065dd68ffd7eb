"""Pickles of tensors, read without running them.

A pickle is a program for a machine with a stack. This one knows its instructions and calls nothing: a tensor
becomes a `Tensor`, an object of any other class an `Unknown`, which stands for it and cannot be used. Only
words are keys of dicts, lists are never compared or printed, so time and memory grow as the file does.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from kvision.errors import UserError

DTYPES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64, "ComplexDoubleStorage": np.complex128,
    "QInt8Storage": np.int8, "QUInt8Storage": np.uint8, "QInt32Storage": np.int32,
}  # fmt: skip
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PLAIN = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
CONSTANTS = {
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg and not opcode.stack_before and opcode.stack_after[:1] not in ([], [pickletools.anyobject])
}
MOST_INSTRUCTIONS = 2**21  # a state dict of 1,000 tensors with its optimizer's takes 10**5
MOST_ARGUMENTS, MOST_DIMENSIONS, LONGEST_NAME = 8, 32, 300


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, with its module's."""

    name: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object of the pickle that was not constructed.

    Attributes:
        kind: the name of its class, or of the function that makes it.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Values that lie elsewhere in the file.

    Attributes:
        key: its name there.
        dtype: of the values.
        size: how many there are.
        values: reads them.
    """

    key: str
    dtype: np.dtype
    size: int
    values: Callable[["Storage"], np.ndarray]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A part of a storage, which is read when it becomes an array."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """A view of the storage; a UserError where the tensor would lie outside of it."""
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > MOST_DIMENSIONS:
            raise UserError("its shape is invalid")
        if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
            raise UserError("its shape is invalid")
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= self.storage.size:
            raise UserError("it reaches beyond its storage")
        if math.prod(self.shape) > self.storage.size:
            raise UserError("it has more values than its storage")
        if 0 in self.shape:
            return np.zeros(self.shape, self.storage.dtype)
        values = self.storage.values(self.storage)
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


def load(file, storage: Callable[[str, np.dtype, int], Storage]):
    """The contents of a pickle, from the file's position on.

    Args:
        file: with `read`, `readline` and `tell`; `read` gives no more than there is.
        storage: makes a storage from its key, dtype and size.

    Returns:
        Dicts with the items whose keys are words, lists, tuples, numbers, words, `Tensor`s, and `Unknown`s
        for all else.

    Raises:
        UserError: it is longer than files of tensors are, or not one.
        Exception: it is damaged.
    """
    stack, marks, memo = [], [], {}

    def since_mark():
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    def last(count):
        if len(stack) < count:
            raise UserError("its pickle takes more from the stack than it holds")
        values = stack[-count:]
        del stack[-count:]
        return values

    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MOST_INSTRUCTIONS:
            raise UserError("its pickle has more instructions than a file of tensors needs")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "POP":
                if marks and marks[-1] == len(stack):
                    marks.pop()
                else:
                    stack.pop()
            case "POP_MARK":
                since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(last(int(opcode.name[-1]))))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(since_mark())
            case "APPEND" | "APPENDS":
                values = last(1) if opcode.name == "APPEND" else since_mark()
                if isinstance(stack[-1], list):
                    stack[-1].extend(values)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_filled({}, since_mark()))
            case "SETITEM" | "SETITEMS":
                values = last(2) if opcode.name == "SETITEM" else since_mark()
                _filled(stack[-1], values)
            case "EMPTY_SET":
                stack.append(Unknown("set"))
            case "ADDITEMS":
                since_mark()
            case "FROZENSET":
                since_mark()
                stack.append(Unknown("frozenset"))
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                index = len(memo) if argument is None else argument
                if index > count:
                    raise UserError("its pickle has an index beyond its size")
                memo[index] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_named(*last(2)))
            case "REDUCE":
                stack.append(_made(*last(2)))
            case "NEWOBJ":
                stack.append(_unknown(last(2)[0]))
            case "NEWOBJ_EX":
                stack.append(_unknown(last(3)[0]))
            case "OBJ":
                stack.append(_unknown(since_mark()[0]))
            case "INST":
                since_mark()
                stack.append(_unknown(_named(*str(argument).split(" ", 1))))
            case "BUILD":
                stack.pop()  # attributes of an object
            case "BINPERSID":
                stack.append(_referred(stack.pop(), storage))
            case _:
                if opcode.name not in CONSTANTS:
                    raise UserError(f"its pickle has the instruction {opcode.name}, which is not for tensors")
                stack.append(argument)
    raise EOFError("it ends too early")


def _filled(target, values: list):
    """A dict with more items, keys and values in turn. Only words are kept as keys."""
    if isinstance(target, dict):
        target.update((k, v) for k, v in zip(values[::2], values[1::2], strict=True) if type(k) is str)
    return target


def _made(function, arguments):
    """The result of a function's call, without the call."""
    few = isinstance(arguments, tuple) and len(arguments) <= MOST_ARGUMENTS
    match _unknown(function).kind, arguments if few else ():
        case "torch._tensor._rebuild_from_type_v2", (Global() as inner, Global(name=kind), inside, _):
            plain = kind in PLAIN and inner.name in TENSORS + PARAMETERS
            return _made(inner, inside) if plain else Unknown(kind)
        case "collections.OrderedDict", (list() as pairs,):  # of Python 2
            items = dict(pair for pair in pairs if type(pair[0]) is str)
            pairs.clear()  # a pickle that names the list a million times would take that many copies
            return items
        case (("collections.OrderedDict" | "collections.defaultdict"), _):
            return {}
        case name, (value, *_) if name in PARAMETERS:
            return value
        case name, (Storage() as storage, offset, tuple(shape), tuple(strides), *more) if name in TENSORS:
            if any(more[2:]):  # it is the negative or the conjugate of its storage
                return Unknown("tensor that is to be changed")
            return Tensor(storage, offset, shape, strides)
    return _unknown(function)


def _unknown(maker) -> Unknown:
    return Unknown(maker.name if isinstance(maker, Global) else type(maker).__name__)


def _named(module: str, name: str) -> Global:
    if len(module) + len(name) > LONGEST_NAME:
        raise UserError("its pickle has a class with too long a name")
    return Global(f"{module}.{name}")


def _referred(reference, storage):
    """The storage that a reference names."""
    if isinstance(reference, tuple) and len(reference) <= MOST_ARGUMENTS:
        match reference:
            case ("storage", Global(name=name), str(key), _, int(size), *view) if not any(view):
                module, _, kind = name.rpartition(".")
                if module in ("torch", "torch.storage") and kind in DTYPES:
                    return storage(key, np.dtype(DTYPES[kind]), size)
    return Unknown("tensor without a storage")
