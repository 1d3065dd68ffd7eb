"""Dtypes of a quantized file's input and output."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision.errors import UserError
from kvision_export import flatbuffer


def set_io_dtype(model: schema.ModelT, io_dtype: str, zero_point: int) -> None:
    """Makes a quantized file take raw pixels.

    Args:
        model: what `quantize` returned, from a float32 pixel less `zero_point`; changed in place.
        io_dtype: "uint8" for pixels and "float32" for the same as floats, both to float32 outputs; "int8" for
            pixels less 128, to int8 outputs.
        zero_point: see `rewrite.fold_normalization`.

    Raises:
        UserError: with "int8", where an operator has no int8 kernel.
    """
    graph = model.subgraphs[0]
    pixels = graph.tensors[graph.inputs[0]]
    if io_dtype == "uint8":  # to int8 by floats, bit for bit the same: XNNPACK has no QUANTIZE of integers
        _insert_first(model, "DEQUANTIZE", "float_pixels", [], schema.DequantizeOptionsT())
        pixels.type = schema.TensorType.UINT8
        pixels.quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[zero_point])
    elif io_dtype == "float32" and zero_point:
        offset = flatbuffer.add_tensor(model, "zero_point", np.float32(-zero_point))
        _insert_first(model, "ADD", "pixel_less_zero_point", [offset], schema.AddOptionsT())
    elif io_dtype == "int8":
        _remove_conversions(model)
        used = sorted(
            {i for operator in graph.operators for i in (*operator.inputs, *operator.outputs)} - {-1}
        )
        for tensor in (graph.tensors[i] for i in used):
            if tensor.type == schema.TensorType.FLOAT32:
                raise UserError(
                    f"{tensor.name.decode()} has no int8 kernel, so the file would not be all int8."
                )


def _insert_first(model, kind, name, constants, options):
    """Inserts an operator between the input, of which it makes floats, and all that read it."""
    graph = model.subgraphs[0]
    start = graph.inputs[0]
    result = flatbuffer.add_tensor(model, name, None, like=start)
    for operator in graph.operators:
        operator.inputs = np.where(operator.inputs == start, result, operator.inputs)
    graph.operators.insert(0, flatbuffer.operator(model, kind, [start, *constants], [result], options))


def _remove_conversions(model):
    """Removes the QUANTIZE of the input and the DEQUANTIZE of each output."""
    graph = model.subgraphs[0]
    first, lasts = graph.operators[0], [flatbuffer.producer(graph, index) for index in graph.outputs]
    for kind, conversion in (("QUANTIZE", first), *(("DEQUANTIZE", last) for last in lasts)):
        if flatbuffer.operator_name(model, conversion) != kind:
            raise UserError(
                "A network that begins or ends in float operators, as detectors do, cannot have `io_dtype` "
                f"int8 ({kind} was expected): uint8 takes the same pixels."
            )
    inside = {int(graph.inputs[0]): int(first.outputs[0])}
    inside |= {int(last.outputs[0]): int(last.inputs[0]) for last in lasts}
    for outer, inner in inside.items():
        graph.tensors[inner].name = graph.tensors[outer].name
    graph.inputs, graph.outputs = (
        np.array([inside[int(index)] for index in indices], np.int32)
        for indices in (graph.inputs, graph.outputs)
    )
    for signature in model.signatureDefs:
        for tensor in (*signature.inputs, *signature.outputs):
            tensor.tensorIndex = inside[tensor.tensorIndex]
    graph.operators = [operator for operator in graph.operators if operator not in (first, *lasts)]
