"""Correction of the biases inside a quantized file (Nagel et al. 2019, section 4.2, https://arxiv.org/abs/1906.04721).

Rounding moves the mean of a layer's outputs, channel by channel; the bias moves it back. Here the means are
measured, on the file itself.
"""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision_export import flatbuffer, inputs
from kvision_export.rounding import round_kernel
from kvision_export.runner import dequantized, operator_alone, tensor_values

MOST_WEIGHTS = 2304  # of an output that are rounded together, 3 x 3 x 256: the time grows with their cube


def correct_biases(
    model: schema.ModelT, float_content: bytes, images: Sequence[np.ndarray], rounded: bool = False
) -> None:
    """Makes the mean of each channel, over the images and positions, that of the float file, layer by layer.

    Args:
        model: the file that `quantize` made of `float_content`; its biases are changed in place.
        float_content: the float file.
        images: float32 `(height, width, channels)`, as both files take them, see `inputs`; 16 are enough, 64
            for rounding.
        rounded: whether each layer's weights are first rounded by what it is given, see `round_kernel`.
    """
    floats = flatbuffer.read(float_content)
    layers = flatbuffer.layers(floats)
    image_means = [
        [_mean(values_of(layer.outputs[0])) for layer in layers]
        for values_of in tensor_values(float_content, images)
    ]
    expected = zip(layers, (np.mean(means, 0) for means in zip(*image_means, strict=True)), strict=True)
    graph = model.subgraphs[0]
    by_input = zip(*(inputs.named(image).values() for image in images), strict=True)
    values = {i: [part[None] for part in parts] for i, parts in zip(graph.inputs, by_input, strict=True)}
    last_use = {i: n for n, operator in enumerate(graph.operators) for i in operator.inputs}
    behind = 1 + max(
        (n for n, op in enumerate(graph.operators) if flatbuffer.is_layer(model, op)), default=-1
    )
    for number, operator in enumerate(graph.operators[:behind]):
        given = [int(i) for i in operator.inputs]  # the correction may give it another bias
        layer, mean = next(expected) if flatbuffer.is_layer(model, operator) else (None, None)
        if layer and rounded and flatbuffer.is_constant(floats, layer.inputs[1]):
            _round_weights(model, operator, flatbuffer.constant(floats, layer.inputs[1]), values)
        results = _run_alone(model, operator, values)
        if layer and _correct_bias(model, operator, results[0], mean):
            results = _run_alone(model, operator, values)
        values.update(zip(operator.outputs, results, strict=True))
        for index in given:
            if last_use[index] == number:
                values.pop(index, None)


def _correct_bias(model, operator, results, mean) -> bool:
    """Moves the mean of a layer's results to `mean`; returns whether it has a bias of integers to do so."""
    tensors = model.subgraphs[0].tensors
    output = tensors[operator.outputs[0]]
    bias = operator.inputs[2] if len(operator.inputs) > 2 else -1
    integers = schema.TensorType.INT8, schema.TensorType.INT16
    if output.type not in integers or not flatbuffer.is_constant(model, bias):
        return False
    old = flatbuffer.constant(model, bias)
    scale, zero_point = output.quantization.scale[0], output.quantization.zeroPoint[0]
    error = scale * (np.mean([_mean(result) for result in results], 0) - zero_point) - mean
    new = old - np.round(error / np.maximum(tensors[bias].quantization.scale, 1e-30))
    new = np.where(np.abs(new) < 2**31, new, old)  # the scale of a kernel of zeros is tiny
    flatbuffer.set_constant(model, operator, 2, new.astype(old.dtype))
    return True


def _round_weights(model, operator, kernel, values):
    """Rounds a layer's weights, where they are int8, no other layer's, not too many and not of groups."""
    graph = model.subgraphs[0]
    source, weights = (graph.tensors[i] for i in operator.inputs[:2])
    depthwise = flatbuffer.operator_name(model, operator) == "DEPTHWISE_CONV_2D"
    if (
        weights.type != schema.TensorType.INT8
        or len(flatbuffer.consumers(graph, operator.inputs[1])) > 1
        or (not depthwise and (kernel[0].size > MOST_WEIGHTS or kernel.shape[-1] != source.shape[-1]))
    ):
        return
    dimension = weights.quantization.quantizedDimension
    scales = np.maximum(weights.quantization.scale, 1e-30)
    kernel = kernel / np.expand_dims(scales, [i for i in range(kernel.ndim) if i != dimension])
    given = (dequantized(value, source) for value in values[operator.inputs[0]])
    flatbuffer.set_constant(model, operator, 1, round_kernel(kernel, operator, given, depthwise))


def _mean(values):
    return values.mean(axis=tuple(range(values.ndim - 1)), dtype=np.float64)


def _run_alone(model, operator, values) -> list[list[np.ndarray]]:
    """The outputs of one operator, each a list over the images, from the values of its inputs."""
    given = [int(i) for i in operator.inputs if i in values]
    alone = operator_alone(model, operator, given)
    image_outputs = [alone(parts) for parts in zip(*(values[i] for i in given), strict=True)]
    return [list(output) for output in zip(*image_outputs, strict=True)]
