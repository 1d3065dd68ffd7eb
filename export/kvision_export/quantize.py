"""int8 files, by litert-quantizer with true ranges and a pinned input."""

import contextlib
import io
import math
import warnings
from collections.abc import Sequence

import keras
import numpy as np
from absl import logging
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import quantizer, recipe
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.qtyping import TFLOperationName

from kvision_export import flatbuffer
from kvision_export.convert import INPUT, SIGNATURE, convert, split_preprocess

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def convert_int8(model: keras.Model, images: Sequence[np.ndarray]) -> bytes:
    """Converts a model to int8 weights and activations, with uint8 pixels in and float32 probabilities out.

    Where `preprocess` has equal constants on all channels, the file does no arithmetic for it: the
    input's own scale and zero point are the normalisation. Elsewhere it stays in the graph.

    Args:
        model: from pixels in [0, 255] to probabilities.
        images: float32 `(height, width, channels)`, to find the ranges of the activations.

    Returns:
        The `.tflite` file.
    """
    if split := split_preprocess(model):
        network, mean, std = split
        floats = [(image - np.float32(mean)) / np.float32(std) for image in images]
        zero_point = math.floor(mean)
        quantized = _quantize(convert(network), floats, 1 / std, zero_point)
        if _shift_input(quantized, mean - zero_point):
            return flatbuffer.write(quantized)
    return flatbuffer.write(_quantize(convert(model), images, 1.0, 0))


def _quantize(content, images, scale, zero_point) -> schema.ModelT:
    """Quantizes a float file; its input becomes uint8 with the given scale and zero point."""
    quantization = quantizer.Quantizer(bytearray(content))
    quantization.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):  # QUANTIZE and DEQUANTIZE at the ends
        quantization.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    ranges = _ranges(quantization, images)
    name = next(name for name in ranges if name.startswith(f"{SIGNATURE}_{INPUT}"))
    shape = ranges[name]["min"].shape
    ranges[name] = {
        "min": np.full(shape, -zero_point * scale, np.float32),
        "max": np.full(shape, (255 - zero_point) * scale, np.float32),
    }
    with quiet():
        result = quantization.quantize(ranges, enable_progress_report=False)
    model = flatbuffer.read(bytes(result.quantized_model))
    graph = model.subgraphs[0]
    pixels = graph.tensors[graph.inputs[0]]
    pixels.type = schema.TensorType.UINT8
    pixels.quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])
    return model


def _ranges(quantization, images) -> dict:
    """The smallest and largest value of every tensor over all images.

    The library's own figure over several images is a moving average, which cuts off what is rare
    (73.5 instead of 86.2 % agreement on EfficientNet-Lite0); over one image it is exact.
    """
    ranges: dict = {}
    with quiet():
        for image in images:
            found = quantization.calibrate({SIGNATURE: [{INPUT: image[None]}]})
            for name, values in found.items():
                seen = ranges.setdefault(name, values)
                if values:
                    seen["min"] = np.minimum(seen["min"], values["min"])
                    seen["max"] = np.maximum(seen["max"], values["max"])
    for values in ranges.values():  # a tensor that is 0 throughout would get a scale that no kernel takes
        if values and not np.any(values["min"]) and not np.any(values["max"]):
            values["max"] = np.ones_like(values["max"])
    return ranges


@contextlib.contextmanager
def quiet():
    """Hides the library's progress bars and its warnings on memory and on channels that are all zero."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.set_verbosity(verbosity)


def _shift_input(model: schema.ModelT, rest: float) -> bool:
    """Moves the part of the mean that the integer zero point leaves over into the first layer's bias.

    The layer's sum of w (pixel - mean) is its sum of w (pixel - zero_point) less rest times the sum
    of w. Exact but at padded borders, where it is off by up to `rest` of a grey level.

    Returns:
        Whether this could be done: the input must reach convolutions or dense layers with a bias alone.
    """
    if not rest:
        return True
    graph = model.subgraphs[0]
    reached, layers = {graph.inputs[0]}, []
    for operator in graph.operators:
        if operator.inputs[0] in reached:
            name = flatbuffer.operator_name(model, operator)
            if name in ("QUANTIZE", "PAD"):
                reached.add(operator.outputs[0])
            elif name in CONVOLUTIONS and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
                layers.append((name, operator))
            else:
                return False
    for name, operator in layers:
        kernel, bias = (graph.tensors[i] for i in operator.inputs[1:3])
        values = flatbuffer.constant(model, kernel, np.int8).astype(np.int64)
        channel = -1 if name == "DEPTHWISE_CONV_2D" else 0
        sums = values.sum(axis=tuple(i for i in range(values.ndim) if i != channel % values.ndim))
        shifted = flatbuffer.constant(model, bias, np.int32) - np.round(rest * sums).astype(np.int32)
        model.buffers[bias.buffer].data = shifted.astype(np.int32).view(np.uint8)
    return bool(layers)
