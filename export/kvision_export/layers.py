"""Correction of the biases inside a quantized file (Nagel et al. 2019, section 4.2, https://arxiv.org/abs/1906.04721).

Rounding moves the mean of a layer's outputs, channel by channel; the bias moves it back. Here the means are
measured, on the file itself.
"""

import copy
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kvision_export import flatbuffer
from kvision_export.ranges import run
from kvision_export.rewrite import WEIGHTED
from kvision_export.rounding import round_kernel

SAMPLE = 8  # images that rank layers
MOST_WEIGHTS = 2304  # of an output that are rounded together, 3 x 3 x 256: the time grows with their cube


def correct_biases(
    content: bytes, float_content: bytes, images: Sequence[np.ndarray], rounded: bool = False
) -> bytes:
    """Makes the mean of each channel, over the images and positions, that of the float file, layer by layer.

    Args:
        content: a file that `quantize` made of `float_content`.
        float_content: the float file.
        images: float32 `(height, width, channels)`, as both files take them; 16 are enough, 64 for rounding.
        rounded: whether each layer's weights are first rounded by what it is given, see `round_kernel`.

    Returns:
        The file, with other int32 biases.
    """
    floats = flatbuffer.read(float_content)
    layers = _layers(floats)
    of_images = [
        [_mean(tensor(layer.outputs[0])) for layer in layers] for tensor in run(float_content, images)
    ]
    expected = zip(layers, (np.mean(means, 0) for means in zip(*of_images, strict=True)), strict=True)
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    values = {graph.inputs[0]: [image[None] for image in images]}
    last_use = {i: n for n, operator in enumerate(graph.operators) for i in operator.inputs}
    for number, operator in enumerate(graph.operators):
        inputs = [int(i) for i in operator.inputs]  # the correction may give it another bias
        layer, mean = next(expected) if _is_layer(model, operator) else (None, None)
        if layer and rounded:
            _round_weights(model, operator, flatbuffer.constant(floats, layer.inputs[1]), values)
        results = _run_alone(model, operator, values)
        if layer:
            bias = operator.inputs[2] if len(operator.inputs) > 2 else -1
            found = graph.tensors[operator.outputs[0]]
            integers = found.type in (schema.TensorType.INT8, schema.TensorType.INT16)
            if integers and flatbuffer.constant(model, bias) is not None:
                scale, zero = found.quantization.scale[0], found.quantization.zeroPoint[0]
                error = scale * (np.mean([_mean(y) for y in results[0]], 0) - zero) - mean
                old = flatbuffer.constant(model, bias)
                new = old - np.round(error / np.maximum(graph.tensors[bias].quantization.scale, 1e-30))
                new = np.where(np.abs(new) < 2**31, new, old)  # the scale of a kernel of zeros is tiny
                flatbuffer.set_constant(model, operator, 2, new.astype(old.dtype))
                results = _run_alone(model, operator, values)
        values.update(zip(operator.outputs, results, strict=True))
        for index in inputs:
            if last_use[index] == number:
                values.pop(index, None)
    return flatbuffer.write(model)


def _round_weights(model, operator, kernel, values):
    """Rounds a layer's weights, where they are int8, no other layer's, not too many and not of groups."""
    graph = model.subgraphs[0]
    start, weights = (graph.tensors[i] for i in operator.inputs[:2])
    depthwise = flatbuffer.operator_name(model, operator) == "DEPTHWISE_CONV_2D"
    if (
        kernel is None
        or weights.type != schema.TensorType.INT8
        or len(flatbuffer.consumers(graph, operator.inputs[1])) > 1
        or (not depthwise and (kernel[0].size > MOST_WEIGHTS or kernel.shape[-1] != start.shape[-1]))
    ):
        return
    dimension = weights.quantization.quantizedDimension
    scales = np.maximum(weights.quantization.scale, 1e-30)
    kernel = kernel / np.expand_dims(scales, [i for i in range(kernel.ndim) if i != dimension])
    inputs = (_reals(value, start) for value in values[operator.inputs[0]])
    flatbuffer.set_constant(model, operator, 1, round_kernel(kernel, operator, inputs, depthwise))


def own_errors(content: bytes, float_content: bytes, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Error that each layer of a quantized file adds, by the name of its output.

    A layer is given the float file's values, rounded as its input is.

    Returns:
        Signal over error, in dB, over all images, the worst first; without layers that are 0 on all of them,
        and without those whose weights are floats.
    """
    floats, model = flatbuffer.read(float_content), flatbuffer.read(content)
    tensors = model.subgraphs[0].tensors
    layers = []
    for layer, operator in zip(_layers(floats), _layers(model), strict=True):
        if tensors[operator.inputs[1]].type in flatbuffer.SMALL_WEIGHTS:
            layers.append((layer, operator, _alone(model, operator, operator.inputs[:1])))
    signals, errors = np.zeros(len(layers)), np.zeros(len(layers))
    for tensor in run(float_content, images):
        for number, (layer, operator, alone) in enumerate(layers):
            ends = tensors[operator.inputs[0]], tensors[operator.outputs[0]]
            found = _reals(alone([_integers(tensor(layer.inputs[0]), ends[0])])[0], ends[1])
            expected = tensor(layer.outputs[0])
            signals[number] += np.square(expected, dtype=np.float64).sum()
            errors[number] += np.square(found - expected, dtype=np.float64).sum()
    names = [floats.subgraphs[0].tensors[layer.outputs[0]].name.decode() for layer, _, _ in layers]
    found = {
        name: float(10 * np.log10(signal / max(error, 1e-30)))
        for name, signal, error in zip(names, signals, errors, strict=True)
        if signal
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _layers(model) -> list[schema.OperatorT]:
    return [operator for operator in model.subgraphs[0].operators if _is_layer(model, operator)]


def _integers(values, tensor):
    if tensor.type == schema.TensorType.FLOAT32:
        return values
    dtype = flatbuffer.DTYPES[tensor.type]
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(dtype)


def _reals(values, tensor):
    if tensor.type == schema.TensorType.FLOAT32:
        return values
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def _mean(values):
    return values.mean(axis=tuple(range(values.ndim - 1)), dtype=np.float64)


def _is_layer(model, operator):
    return flatbuffer.operator_name(model, operator) in WEIGHTED


def _run_alone(model, operator, values) -> list[list[np.ndarray]]:
    """The outputs of one operator, each a list over the images, from the values of its inputs."""
    given = [int(i) for i in operator.inputs if i in values]
    alone = _alone(model, operator, given)
    of_images = [alone(parts) for parts in zip(*(values[i] for i in given), strict=True)]
    return [list(output) for output in zip(*of_images, strict=True)]


def _alone(model, operator, given):
    """A function from the values of an operator's `given` inputs to its outputs."""
    graph = model.subgraphs[0]
    place = {}
    only, alone = schema.SubGraphT(), schema.ModelT()
    only.tensors, alone.buffers = [], [schema.BufferT()]
    for index in (int(i) for i in (*operator.inputs, *operator.outputs) if i >= 0):
        if index in place:
            continue
        tensor = copy.copy(graph.tensors[index])
        data, tensor.buffer = model.buffers[tensor.buffer].data, 0
        if data is not None and len(data):
            tensor.buffer = len(alone.buffers)
            alone.buffers.append(schema.BufferT())
            alone.buffers[-1].data = data
        place[index] = len(only.tensors)
        only.tensors.append(tensor)
    step = copy.copy(operator)
    step.opcodeIndex = 0
    step.inputs = np.array([place.get(int(i), -1) for i in operator.inputs], np.int32)
    step.outputs = np.array([place[int(i)] for i in operator.outputs], np.int32)
    only.operators, only.outputs = [step], step.outputs
    only.inputs = np.array([place[int(i)] for i in given], np.int32)
    alone.version, alone.subgraphs = 3, [only]
    alone.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    for buffer in alone.buffers:
        buffer.offset = buffer.size = 0
    interpreter = Interpreter(
        model_content=flatbuffer.write(alone),
        num_threads=2,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    inputs, outputs = only.inputs, only.outputs

    def call(parts):
        for index, part in zip(inputs, parts, strict=True):
            interpreter.set_tensor(index, part)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return call
