"""Faults of a file, which no file that was converted well has."""

from ai_edge_litert import schema_py_generated as schema

from kvision.names import counted
from kvision_export import flatbuffer

FORBIDDEN = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CUSTOM")


def find_faults(model: schema.ModelT) -> list[str]:
    """Faults, which no file that was converted well has: variables, custom operators, or a detour by floats.

    Pixels may take one: XNNPACK runs both of its operators, but none from uint8 to int8.
    """
    faults = []
    graph = model.subgraphs[0]
    names = [flatbuffer.operator_name(model, operator) for operator in graph.operators]
    inside = [flatbuffer.operator_name(model, op) for loop in model.subgraphs[1:] for op in loop.operators]
    for name in FORBIDDEN:
        if count := (names + inside).count(name):
            operators = counted(count, f"{name} operator")
            faults.append(f"{operators}, which phones' runtimes do not have built in.")
    for operator, name in zip(graph.operators, names, strict=True):
        if name == "DEQUANTIZE" and _is_computed(model, operator.inputs[0]):
            behind = flatbuffer.consumers(graph, operator.outputs[0])
            if behind and all(flatbuffer.operator_name(model, op) == "QUANTIZE" for op in behind):
                tensor = graph.tensors[operator.outputs[0]].name.decode()
                faults.append(f"{tensor} is dequantized only to be quantized again.")
    return faults


def _is_computed(model, index) -> bool:
    return index not in model.subgraphs[0].inputs and not flatbuffer.is_constant(model, index)
