"""The modes: how the file of each is made, and by what it is judged; TensorFlow is imported only then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kvision_export.tolerance import Tolerance

if TYPE_CHECKING:
    from kvision_export.judges import Judge
    from kvision_export.search import Step

UNROLLED = "unrolled"  # form of float32 without loops, of which files of integers are made
LIMITS = {"difference": 1e-4, "float16": 0.995, "agreement": 0.97, "drop": 0.005}
BOUNDS = {"agreement": "agreement", "drop": "drop"}


@dataclasses.dataclass(frozen=True)
class Given:
    """The inputs from which the files of a network are made.

    Attributes:
        forms: float files by `Mode.form`, from pixels in [0, 255] to the task's answers.
        images: float32 `(images, height, width, channels)` in [0, 255], see `inputs`, a sample of which ranks
            layers.
        calibration: such images that give ranges; half of them choose between the steps of int8.
        backend, io_dtype, pixels: see `int8.Int8Files`.
        mixed, finished, judge: see `search.Search`.
        tolerance: of the mode.
        say: called with a line of progress now and then.
    """

    forms: Mapping[str, bytes]
    images: np.ndarray
    calibration: np.ndarray
    backend: str
    io_dtype: str
    pixels: bool
    mixed: bool
    finished: Callable[[bytes], bytes]
    judge: Judge
    tolerance: Tolerance
    say: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Made:
    """A file, and what its making told.

    Attributes:
        content: bytes of the file, from pixels in [0, 255] to probabilities.
        steps, layers: see `files.File`.
    """

    content: bytes
    steps: list[Step] = dataclasses.field(default_factory=list)
    layers: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way to make a file.

    Attributes:
        make: function that makes the file.
        form: the converter's file that it is made of, one of `convert.FLOATS` or `convert.UNROLLED`.
        reference: whether the others are measured against it.
        calibrated: whether it needs calibration images.
        integers: whether it computes in integers from end to end: `io_dtype` is about it, and TFLiteConverter
            has such a file of its own to compare with.
        bounds: the name of a limit, by the field of `Tolerance` that it sets.
    """

    make: Callable[[Given], Made]
    form: str = "float32"
    reference: bool = False
    calibrated: bool = False
    integers: bool = False
    bounds: Mapping[str, str] = dataclasses.field(default_factory=lambda: BOUNDS)


def tolerance(mode: str, **limits: float) -> Tolerance:
    """Tolerance of a mode.

    Args:
        mode: one of `MODES`.
        **limits: those that differ from `LIMITS`: the largest difference of a probability in float32, the
            least agreement of float16, and the least agreement and the largest drop of the others.
    """
    values = LIMITS | limits
    return Tolerance(**{field: values[limit] for field, limit in MODES[mode].bounds.items()})


def _float32(given: Given) -> Made:
    return Made(given.forms["float32"])


def _float16(given: Given) -> Made:
    return Made(given.forms["float16"])


def _dynamic(given: Given) -> Made:
    return _with_layers(given, given.forms["dynamic"], given.forms["float32"])


def _int8(given: Given) -> Made:
    from kvision_export.int8 import Int8Files
    from kvision_export.search import Search

    half = len(given.calibration) // 2
    search = Search(
        Int8Files(
            given.forms[UNROLLED],
            given.calibration[:half],
            backend=given.backend,
            io_dtype=given.io_dtype,
            pixels=given.pixels,
        ),
        given.calibration[half:],
        mixed=given.mixed,
        agreement=given.tolerance.agreement or 0.0,
        finished=given.finished,
        judge=given.judge,
        say=given.say,
    )
    content = search.run()
    return Made(content, search.steps, search.own_errors())


def _int16x8(given: Given) -> Made:
    from kvision_export import flatbuffer
    from kvision_export.float_operators import float_operators
    from kvision_export.quantize import quantize
    from kvision_export.ranges import Ranges
    from kvision_export.rewrite import split_hard_swish

    floats = given.forms[UNROLLED]
    model = flatbuffer.read(floats)
    if split_hard_swish(model):
        floats = flatbuffer.write(model)
    ranges = Ranges(floats, given.calibration).find("minmax")
    kept = float_operators(model)
    content = flatbuffer.write(quantize(floats, ranges, backend=given.backend, bits=16, floats=kept))
    return _with_layers(given, content, floats)


def _int4(given: Given) -> Made:
    from kvision_export.quantize import four_bits

    floats = given.forms[UNROLLED]
    return _with_layers(given, four_bits(floats), floats)


def _with_layers(given, content, floats) -> Made:
    from kvision_export.layer_errors import SAMPLE, own_errors

    return Made(content, layers=own_errors(content, floats, given.images[:SAMPLE]))


MODES = {
    "float32": Mode(_float32, reference=True, bounds={"difference": "difference"}),
    "float16": Mode(_float16, form="float16", bounds={"agreement": "float16"}),
    "dynamic": Mode(_dynamic, form="dynamic"),
    "int8": Mode(_int8, form=UNROLLED, calibrated=True, integers=True),
    "int16x8": Mode(_int16x8, form=UNROLLED, calibrated=True),
    "int4": Mode(_int4, form=UNROLLED),
}
(REFERENCE,) = (name for name, mode in MODES.items() if mode.reference)
