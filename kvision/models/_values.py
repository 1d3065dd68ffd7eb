"""Checks of the values of builders' keywords.

Upper bounds are several times what any paper has, so that a slip is a sentence and does not fill the memory.
"""

import math
import numbers
import operator
import reprlib
import types
import typing

import keras
import numpy as np

from kvision.errors import UserError
from kvision.spec import Preprocess, Variant, did_you_mean

MOST_PIXELS, MOST_CHANNELS, MOST_CLASSES = 2**14, 10**4, 10**6  # pixels of a side
MOST = {"depth": 1000, "": 10**4}  # integers, by the beginning of the column's name
RANGES = {  # by the end of the column's name: what is said, and the test
    "_multiplier": ("a number above 0, and at most 10", lambda x: 0 < x <= 10),
    "_ratio": ("a number above 0, and at most 100", lambda x: 0 < x <= 100),
    "_threshold": ("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "_rate": ("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "norm_momentum": ("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "norm_epsilon": ("a number from 0", lambda x: 0 <= x < 1e38),
    "compression": ("a number above 0, and at most 1", lambda x: 0 < x <= 1),
    "": ("a positive number", lambda x: 0 < x < 1e38),  # float32 ends there
}


def checked(variant: Variant, columns: dict) -> dict:
    """Columns of a row, in the types that the row declares; NumPy's scalars and lists are converted.

    Raises:
        ValueError: a value has another type, length or range.
    """
    hints = typing.get_type_hints(type(variant))
    return {key: _column(key, value, hints[key], getattr(variant, key)) for key, value in columns.items()}


def _column(key, value, hint, default):
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is typing.Literal:
        return choice(key, value, typing.get_args(hint))
    if key == "activation":
        return activation(key, value)
    if hint is bool:
        return boolean(key, value)
    if hint is int:
        return integer(key, value)
    if hint is float:
        return _number(key, value)
    if tuple in (hint, typing.get_origin(hint)):
        return _tuple(key, value, default)
    if not callable(value):
        refuse(key, f"a function, such as {default.__name__}", value)
    return value


def refuse(key, expected, value, hint=""):
    """Raises the UserError of a keyword's value."""
    raise UserError(f"`{key}` must be {expected}; got {reprlib.repr(value)}.{hint and ' ' + hint}")


def integer(key, value, most=None) -> int:
    """A positive integer of at most `most`, by default that of the column; a boolean is refused."""
    most = most or next(most for start, most in MOST.items() if key.startswith(start))
    value = _plain(value)
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    expected = "a positive integer" + f" of at most {most:,}" * (number > most)
    return number if 0 < number <= most else refuse(key, expected, value)


def boolean(key, value) -> bool:
    """True or False, and not what only counts as one of them, such as the text "False"."""
    value = _plain(value)
    return value if isinstance(value, bool) else refuse(key, "True or False", value)


def choice(key, value, choices):
    """One of several values."""
    if not any(value is one or (isinstance(value, str) and value == one) for one in choices):
        refuse(key, f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}", value)
    return value


def model_name(value) -> None:
    """Refuses what Keras takes as no name of a model."""
    if value is not None and (not isinstance(value, str) or "/" in value or not value):
        refuse("name", "a text, not empty and without '/'", value)


def preprocess(value) -> None:
    """Refuses what is not a normalisation, or None."""
    if value is not None and not isinstance(value, Preprocess):
        refuse("preprocess", "a `kvision.Preprocess`", value)


def activation(key, value):
    """An activation that `keras.activations.get` takes."""
    try:
        keras.activations.get(value)
    except (ValueError, TypeError):
        names = [name for name in dir(keras.activations) if not name.startswith("_")]
        near = did_you_mean(str(value), {*names} - {"get", "serialize", "deserialize"})
        refuse(key, "a Keras activation", value, near)
    return value


def numbers_of(key, value, dtype="float32") -> np.ndarray:
    """An array of numbers; text, or rows of different lengths, are refused."""
    try:
        array = keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError
        return array.astype(dtype)
    except (TypeError, ValueError):
        return refuse(key, "an array of numbers", value)


def _number(key, value):
    value = _plain(value)
    number = value if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    expected, fits = next(row for end, row in RANGES.items() if key.endswith(end))
    return value if fits(number) else refuse(key, expected, value)


def _tuple(key, value, default) -> tuple:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    items = tuple(value) if isinstance(value, list | tuple) else ()
    if isinstance(default[0], int):
        if len(items) != len(default):
            refuse(key, f"a tuple of {len(default)} positive integers, such as {default}", value)
        return tuple(integer(f"{key}[{i}]", item) for i, item in enumerate(items))
    row = _kinds(default).pop()
    if _kinds(items) != {row}:
        refuse(key, f"a tuple of {row.__name__}s, as in the family's table", value)
    return items


def _kinds(rows) -> set[type]:
    """The types of a table's rows, of which a stage may have several."""
    if isinstance(rows, list | tuple) and not hasattr(rows, "_fields"):
        return set().union(*map(_kinds, rows))
    return {type(rows)}


def _plain(value):
    """A NumPy scalar as Python's."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value
