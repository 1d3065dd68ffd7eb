"""Int8 files of a network, made by settings."""

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision_export import flatbuffer, inputs
from kvision_export.activations import OPERATORS
from kvision_export.bias_correction import correct_biases
from kvision_export.float_operators import float_operators
from kvision_export.io_dtype import set_io_dtype
from kvision_export.layer_errors import own_errors
from kvision_export.quantize import quantize
from kvision_export.ranges import Ranges
from kvision_export.rewrite import fold_normalization, split_hard_swish

BIAS_IMAGES, ROUNDING_IMAGES = 16, 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings by which a file is made.

    Attributes:
        hard_swish: whether hard-swish is written as products.
        folded: whether the normalisation goes into the first layer, where it can.
        method: method that gives the activations' ranges, one of `ranges.METHODS`.
        bias_corrected: whether biases are corrected.
        rounded: whether weights are rounded by what their layers are given; biases are corrected then.
        floats: names of the operators that stay float, by their outputs.
    """

    hard_swish: bool = False
    folded: bool = True
    method: str = "minmax"
    bias_corrected: bool = False
    rounded: bool = False
    floats: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FloatFile:
    """A float file that int8 files are made of.

    Attributes:
        content: bytes of the file.
        model: the file, parsed.
        zero_point: number that is subtracted from the pixels it is given.
        ranges: ranges of its activations.
    """

    content: bytes
    model: schema.ModelT
    zero_point: int
    ranges: Ranges


class Int8Files:
    """Makes int8 files of one network.

    Args:
        content: the float `.tflite` file, from pixels in [0, 255] to probabilities.
        calibration: float32 `(images, height, width, channels)` in [0, 255], see `inputs`.
        backend: see `quantize`.
        io_dtype: "uint8" (pixels in, float32 probabilities out), "float32" (both), or "int8" (both, and not
            one float operator between).
        pixels: whether the input are pixels; of others the range is that of the calibration.
    """

    def __init__(
        self,
        content: bytes,
        calibration: np.ndarray,
        *,
        backend: str = "litert",
        io_dtype: str = "uint8",
        pixels: bool = True,
    ):
        self.content, self.calibration = content, calibration
        self.backend, self.io_dtype, self.pixels = backend, io_dtype, pixels
        self._float_files: dict[tuple[bool, bool], FloatFile] = {}

    def make(self, settings: Settings) -> bytes:
        """The int8 file of some settings; its operators have no versions yet, see `set_versions`."""
        floats = self.float_file(settings)
        model = quantize(
            floats.content,
            floats.ranges.find(settings.method) | self._input_range(floats),
            backend=self.backend,
            floats=(*self._activations(floats.model), *float_operators(floats.model), *settings.floats),
        )
        if settings.bias_corrected or settings.rounded:
            count = ROUNDING_IMAGES if settings.rounded else BIAS_IMAGES
            images = [inputs.less(image, floats.zero_point) for image in self.calibration[:count]]
            correct_biases(model, floats.content, images, settings.rounded)
        set_io_dtype(model, self.io_dtype, floats.zero_point)
        return flatbuffer.write(model)

    def float_file(self, settings: Settings) -> FloatFile:
        """The float file of some settings; the same one for settings that change nothing in it."""
        key = settings.hard_swish, settings.folded
        if key not in self._float_files:
            model, content = flatbuffer.read(self.content), self.content
            changed = settings.hard_swish and split_hard_swish(model) > 0
            zero_point = fold_normalization(model) if settings.folded and self.pixels else None
            if changed or zero_point is not None:
                content = flatbuffer.write(model)
            for known in self._float_files.values():
                if known.content == content:
                    self._float_files[key] = known
                    return known
            zero_point = zero_point or 0
            images = (inputs.less(image, zero_point) for image in self.calibration)
            self._float_files[key] = FloatFile(content, model, zero_point, Ranges(content, images))
        return self._float_files[key]

    def first_layers(self, settings: Settings) -> list[tuple[str, ...]]:
        """Operators that stay float with the first layer, with the first two, ..., and all before them."""
        model = self.float_file(settings).model
        prefixes, names = [], ()
        for operator in model.subgraphs[0].operators:
            names = *names, _name(model, operator)
            if flatbuffer.is_layer(model, operator):
                prefixes.append(names)
        return prefixes

    def last_layers(self, settings: Settings, depth: int = 1) -> tuple[str, ...]:
        """Operators that stay float with the last layers before others that do, as in a detector's heads.

        Args:
            settings: of the file.
            depth: number of layers in a row, on the longest way.
        """
        model = self.float_file(settings).model
        graph, floats = model.subgraphs[0], {*float_operators(model)}
        rest: dict[int, int] = {}  # how many layers before an operator may stay float too
        names = ()
        for operator in reversed(graph.operators):
            if _name(model, operator) in floats:
                rest[id(operator)] = depth
                continue
            readers = [reader for index in operator.outputs for reader in flatbuffer.consumers(graph, index)]
            left = min((rest[id(reader)] for reader in readers), default=0)
            if left:
                names = *names, _name(model, operator)
            rest[id(operator)] = max(left - flatbuffer.is_layer(model, operator), 0)
        return names

    def own_errors(self, content: bytes, settings: Settings, images: np.ndarray) -> dict[str, float]:
        """Error that each layer of the file of some settings adds by itself; see `layer_errors`."""
        floats = self.float_file(settings)
        given = [inputs.less(image, floats.zero_point) for image in images]
        return own_errors(content, floats.content, given)

    def _input_range(self, floats):
        if not self.pixels:
            return {}
        pixels = int(floats.model.subgraphs[0].inputs[0])
        return {pixels: (float(-floats.zero_point), float(255 - floats.zero_point))}

    def _activations(self, model) -> list[str]:
        """The operators that give probabilities, whose int8 knows steps of 1/256 only."""
        graph = model.subgraphs[0]
        computed = [index for index in graph.outputs if not flatbuffer.is_constant(model, index)]
        lasts = [flatbuffer.producer(graph, index) for index in computed]
        names = [_name(model, last) for last in lasts if flatbuffer.operator_name(model, last) in OPERATORS]
        return names if self.io_dtype != "int8" else []


def _name(model, operator):
    return model.subgraphs[0].tensors[operator.outputs[0]].name.decode()
