"""Changes of a float graph that are exact in float and better in int8."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision_export import flatbuffer

LINEAR = ("MEAN", "AVERAGE_POOL_2D", "RESHAPE", "PAD", "MUL")  # of their first input, or either of MUL's


def split_hard_swish(model: schema.ModelT) -> int:
    """Writes hard-swish as x relu6(x + 3), with the 1/6 in the kernels that its value reaches.

    XNNPACK has no int8 kernel for HARD_SWISH, and each one would part the graph in two. One whose value
    reaches anything but convolutions and dense layers, such as a residual addition, stays as it is.

    Args:
        model: a float file; changed in place.

    Returns:
        The number of operators that were rewritten.
    """
    graph = model.subgraphs[0]
    three, operators, count = None, [], 0
    for operator in graph.operators:
        layers = None
        if flatbuffer.operator_name(model, operator) == "HARD_SWISH":
            layers = _layers_behind(model, operator.outputs[0])
        if not layers:
            operators.append(operator)
            continue
        for layer in layers:
            kernel = flatbuffer.constant(model, layer.inputs[1])
            flatbuffer.set_constant(model, layer, 1, kernel / np.float32(6))
        x, y = operator.inputs[0], operator.outputs[0]
        name = graph.tensors[y].name.decode()
        if three is None:
            three = flatbuffer.add_tensor(model, "three", np.float32(3))
        gate = flatbuffer.add_tensor(model, f"{name}/gate", None, like=y)
        add = schema.AddOptionsT()
        add.fusedActivationFunction = schema.ActivationFunctionType.RELU6
        operators.append(flatbuffer.operator(model, "ADD", [x, three], [gate], add))
        operators.append(flatbuffer.operator(model, "MUL", [x, gate], [y], schema.MulOptionsT()))
        count += 1
    graph.operators = operators
    return count


def _layers_behind(model, start) -> list[schema.OperatorT] | None:
    """The layers with kernels that a tensor's value reaches through linear operators; None if others too."""
    graph = model.subgraphs[0]
    layers, reached, todo = [], set(), [start]
    while todo:
        tensor = todo.pop()
        if tensor in reached:
            continue
        reached.add(tensor)
        if tensor in graph.outputs:
            return None
        for operator in flatbuffer.consumers(graph, tensor):
            name = flatbuffer.operator_name(model, operator)
            if name in flatbuffer.WEIGHTED and operator.inputs[0] == tensor and _has_kernel(model, operator):
                layers += [operator] * (operator not in layers)
            elif name in LINEAR and not _activation(operator):
                todo.append(operator.outputs[0])
            else:
                return None
    products = (op for op in graph.operators if flatbuffer.operator_name(model, op) == "MUL")
    if any(set(product.inputs) <= reached for product in products):
        return None  # of second degree
    return layers


def fold_normalization(model: schema.ModelT) -> int | None:
    """Puts the arithmetic on pixels into the first layer, whose input then is the pixel less a whole number.

    That number is the zero point of a uint8 input of scale 1, so raw pixels can be fed. Exact but at
    zero-padded borders where channels differ or a mean is not a whole number.

    Args:
        model: a float file from pixels in [0, 255]; changed in place.

    Returns:
        The zero point; None, and no change, without such arithmetic or where more than convolutions follow.
    """
    graph = model.subgraphs[0]
    start = tensor = int(graph.inputs[0])
    channels = int(graph.tensors[start].shape[-1])
    factor, offset = np.ones(channels), np.zeros(channels)  # behind the arithmetic is factor * pixel + offset
    removed = []
    while operator := _arithmetic(model, tensor):
        value = flatbuffer.constant(model, operator.inputs[1]).astype(np.float64)
        if value.size not in (1, channels) or value.shape[-1:] not in ((), (1,), (channels,)):
            return None
        kind, value = flatbuffer.operator_name(model, operator), np.broadcast_to(value.ravel(), channels)
        if kind in ("MUL", "DIV"):
            value = 1 / value if kind == "DIV" else value
            factor, offset = factor * value, offset * value
        else:
            offset = offset + (value if kind == "ADD" else -value)
        removed.append(operator)
        tensor = int(operator.outputs[0])
    layers = _first_convolutions(model, tensor, channels)
    if not removed or not layers or not factor.all():
        return None
    zero_point = int(np.clip(np.floor(np.mean(-offset / factor)), 0, 255))
    for layer in layers:
        kernel = flatbuffer.constant(model, layer.inputs[1]).astype(np.float64)
        bias = flatbuffer.constant(model, layer.inputs[2])
        bias = bias + (kernel * (offset + factor * zero_point)).sum((1, 2, 3))
        flatbuffer.set_constant(model, layer, 1, (kernel * factor).astype(np.float32))
        flatbuffer.set_constant(model, layer, 2, bias.astype(np.float32))
    for reader in graph.operators:
        reader.inputs = np.where(reader.inputs == tensor, start, reader.inputs)
    graph.operators = [operator for operator in graph.operators if operator not in removed]
    return zero_point


def _arithmetic(model, tensor) -> schema.OperatorT | None:
    """The only operator that reads a tensor, where it is a constant's product or sum."""
    readers = flatbuffer.consumers(model.subgraphs[0], tensor)
    if len(readers) == 1 and flatbuffer.operator_name(model, readers[0]) in ("MUL", "ADD", "SUB", "DIV"):
        reader = readers[0]
        constant = flatbuffer.is_constant(model, reader.inputs[1])
        if reader.inputs[0] == tensor and constant and not _activation(reader):
            return reader
    return None


def _first_convolutions(model, tensor, channels) -> list[schema.OperatorT]:
    """The convolutions that read a tensor, padded or not; none if anything else does."""
    layers, todo = [], [tensor]
    while todo:
        tensor = todo.pop()
        for operator in flatbuffer.consumers(model.subgraphs[0], tensor):
            kind = flatbuffer.operator_name(model, operator)
            if kind == "PAD":
                todo.append(operator.outputs[0])
            elif kind == "CONV_2D" and operator.inputs[0] == tensor and _has_kernel(model, operator):
                if flatbuffer.constant(model, operator.inputs[1]).shape[-1] != channels:
                    return []
                layers.append(operator)
            else:
                return []
    return layers


def _has_kernel(model, operator):
    return all(flatbuffer.is_constant(model, index) for index in operator.inputs[1:3])


def _activation(operator):
    return getattr(operator.builtinOptions, "fusedActivationFunction", 0)
