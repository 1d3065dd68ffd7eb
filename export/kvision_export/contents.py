"""Dtypes of a file: of its operators, of its weights, of its input and its output."""

import dataclasses
from collections import Counter

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision_export import flatbuffer

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
INTEGERS = ("int4", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclasses.dataclass(frozen=True)
class IODtype:
    """Dtype of a file's input or output.

    Attributes:
        dtype: its name, such as "uint8".
        scale, zero_point: a value v means `scale * (v - zero_point)`; 1 and 0 for floats.
    """

    dtype: str
    scale: float = 1.0
    zero_point: int = 0


def io_dtypes(model: schema.ModelT) -> tuple[IODtype, IODtype]:
    """Dtypes of a file's first input and of its first output."""
    graph = model.subgraphs[0]
    return _io_dtype(graph.tensors[graph.inputs[0]]), _io_dtype(graph.tensors[graph.outputs[0]])


def _io_dtype(tensor) -> IODtype:
    dtype, quantization = _dtype(tensor), tensor.quantization
    if dtype not in INTEGERS or quantization is None or quantization.scale is None:
        return IODtype(dtype)
    return IODtype(dtype, float(quantization.scale[0]), int(quantization.zeroPoint[0]))


def computed_in(model: schema.ModelT) -> dict[str, dict[str, int]]:
    """Number of operators by name and type of their values, without conversions between types.

    Floats with integer weights, whose activations are quantized as they come, are apart: "float32 by int8".
    """
    counts = {}
    for graph, operator in _operators(model):
        name = flatbuffer.operator_name(model, operator)
        if name in CONVERSIONS:
            continue
        kind = _dtype(graph.tensors[operator.outputs[0]])
        if (
            name in flatbuffer.WEIGHTED
            and kind == "float32"
            and (stored := _dtype(_kernel(model, graph, operator))) in INTEGERS
        ):
            kind = f"float32 by {stored}"
        counts.setdefault(kind, Counter())[name] += 1
    return {kind: dict(sorted(by_name.items())) for kind, by_name in sorted(counts.items())}


def stored_as(model: schema.ModelT) -> dict[str, int]:
    """Number of convolutions and dense layers by type of weights; "int8 by channel" has many scales."""
    counts = Counter()
    for graph, layer in _operators(model):
        if not flatbuffer.is_layer(model, layer):
            continue
        kernel = _kernel(model, graph, layer)
        scales = () if kernel.quantization is None else kernel.quantization.scale
        counts[_dtype(kernel) + " by channel" * (scales is not None and len(scales) > 1)] += 1
    return dict(counts.most_common())


def _operators(model):
    """All operators, those inside loops included, each with its graph."""
    return ((graph, operator) for graph in model.subgraphs for operator in graph.operators)


def _kernel(model, graph, operator):
    """A layer's kernel as it is stored, behind a DEQUANTIZE of constants."""
    index = operator.inputs[1]
    for producer in graph.operators:
        if index in producer.outputs and flatbuffer.operator_name(model, producer) == "DEQUANTIZE":
            index = producer.inputs[0]
    return graph.tensors[index]


def _dtype(tensor) -> str:
    if tensor.type in flatbuffer.DTYPES:
        return np.dtype(flatbuffer.DTYPES[tensor.type]).name
    return next(name for name, value in vars(schema.TensorType).items() if value == tensor.type).lower()
