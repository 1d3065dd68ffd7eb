"""Correction of the biases inside a quantized file (Nagel et al. 2019, section 4.2, https://arxiv.org/abs/1906.04721).

Rounding moves the mean of a layer's outputs, channel by channel; the bias moves it back. Here the means are
measured, on the file itself.
"""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kvision_export import flatbuffer
from kvision_export.ranges import run
from kvision_export.rewrite import WEIGHTED


def correct_biases(content: bytes, float_content: bytes, images: Sequence[np.ndarray]) -> bytes:
    """Makes the mean of each channel, over the images and positions, that of the float file, layer by layer.

    Args:
        content: a file that `quantize` made of `float_content`.
        float_content: the float file.
        images: float32 `(height, width, channels)`, as both files take them; 16 are enough.

    Returns:
        The file, with other int32 biases.
    """
    floats = flatbuffer.read(float_content)
    outputs = [op.outputs[0] for op in floats.subgraphs[0].operators if _is_layer(floats, op)]
    of_images = [[_mean(tensor(i)) for i in outputs] for tensor in run(float_content, images)]
    expected = iter([np.mean(means, 0) for means in zip(*of_images, strict=True)])
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    values = {graph.inputs[0]: [image[None] for image in images]}
    last_use = {i: n for n, operator in enumerate(graph.operators) for i in operator.inputs}
    for number, operator in enumerate(graph.operators):
        results = _run_alone(model, operator, values)
        if _is_layer(model, operator):
            mean, bias = next(expected), operator.inputs[2] if len(operator.inputs) > 2 else -1
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
        for index in operator.inputs:
            if last_use[index] == number:
                values.pop(index, None)
    return flatbuffer.write(model)


def own_errors(content: bytes, float_content: bytes, images: Sequence[np.ndarray]) -> dict[str, float]:
    """What each layer of a quantized file adds to the error, by the name of its output.

    A layer is given the float file's values, rounded as its input is.

    Returns:
        Signal over error, in dB, over all images.
    """
    floats, model = flatbuffer.read(float_content), flatbuffer.read(content)
    layers = [op for op in floats.subgraphs[0].operators if _is_layer(floats, op)]
    ours = [op for op in model.subgraphs[0].operators if _is_layer(model, op)]
    ends = [(op.inputs[0], op.outputs[0]) for op in layers]
    seen = [[(tensor(x).copy(), tensor(y).copy()) for x, y in ends] for tensor in run(float_content, images)]
    tensors, errors = model.subgraphs[0].tensors, {}
    for number, (layer, operator) in enumerate(zip(layers, ours, strict=True)):
        name = floats.subgraphs[0].tensors[layer.outputs[0]].name.decode()
        pixels, result = (tensors[i] for i in (operator.inputs[0], operator.outputs[0]))
        if pixels.type == schema.TensorType.FLOAT32:
            continue
        given = {operator.inputs[0]: [_integers(image[number][0], pixels) for image in seen]}
        found = _run_alone(model, operator, given)[0]
        expected = np.stack([image[number][1] for image in seen])
        error = np.stack([_reals(y, result) for y in found]) - expected
        errors[name] = 10 * np.log10(np.square(expected).sum() / max(np.square(error).sum(), 1e-30))
    return errors


def _integers(values, tensor):
    dtype = flatbuffer.DTYPES[tensor.type]
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(dtype)


def _reals(values, tensor):
    scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return (values.astype(np.float32) - zero) * scale


def _mean(values):
    return values.mean(axis=tuple(range(values.ndim - 1)), dtype=np.float64)


def _is_layer(model, operator):
    return flatbuffer.operator_name(model, operator) in WEIGHTED


def _run_alone(model, operator, values) -> list[list[np.ndarray]]:
    """The outputs of one operator, each a list over the images, from the values of its inputs."""
    graph = model.subgraphs[0]
    indices = [int(i) for i in (*operator.inputs, *operator.outputs) if i >= 0]
    given = [int(i) for i in operator.inputs if i in values]
    alone = schema.ModelT()
    alone.version = 3
    alone.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    alone.buffers = [schema.BufferT() for _ in range(len(indices) + 1)]
    only = schema.SubGraphT()
    only.tensors = []
    place = {}
    for index in indices:
        if index in place:
            continue
        tensor = _copy(graph.tensors[index])
        if flatbuffer.constant(model, index) is not None:
            tensor.buffer = len(only.tensors) + 1
            alone.buffers[tensor.buffer].data = model.buffers[graph.tensors[index].buffer].data
        else:
            tensor.buffer = 0
        place[index] = len(only.tensors)
        only.tensors.append(tensor)
    step = _copy(operator)
    step.opcodeIndex = 0
    step.inputs = np.array([place.get(int(i), -1) for i in operator.inputs], np.int32)
    step.outputs = np.array([place[int(i)] for i in operator.outputs], np.int32)
    only.operators = [step]
    only.inputs = np.array([place[i] for i in given], np.int32)
    only.outputs = step.outputs
    alone.subgraphs = [only]
    for buffer in alone.buffers:
        buffer.offset = buffer.size = 0
    interpreter = Interpreter(
        model_content=flatbuffer.write(alone),
        num_threads=2,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    results = [[] for _ in operator.outputs]
    for parts in zip(*(values[i] for i in given), strict=True):
        for index, part in zip(only.inputs, parts, strict=True):
            interpreter.set_tensor(index, part)
        interpreter.invoke()
        for result, index in zip(results, only.outputs, strict=True):
            result.append(interpreter.get_tensor(index))
    return results


def _copy(thing):
    other = type(thing)()
    other.__dict__.update(thing.__dict__)
    return other
