"""Versions of operators: the oldest that takes their types, and the oldest runtimes that have it.

The tables are those of LiteRT's tflite/converter/tools/versioning/op_version.cc and runtime_version.cc.
"""

from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision_export import flatbuffer

RUNTIMES = {  # the oldest runtime of each version of an operator, from version 1 on
    "ABS": "1.13 2.4 2.5 2.6", "ADD": "1.5 1.14 2.4 2.6", "ARG_MAX": "1.9 1.14 2.9",
    "AVERAGE_POOL_2D": "1.5 1.14 2.3",
    "BATCH_MATMUL": "2.3 2.3 2.4 2.5", "BROADCAST_TO": "2.5 2.5 2.5", "CAST": "1.5 2.7 2.8 2.9 2.12",
    "CONCATENATION": "1.5 1.14 2.3",
    "CONV_2D": "1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15",
    "DEPTHWISE_CONV_2D": "1.5 1.12 1.14 2.2 2.3 2.3 2.11",
    "DEQUANTIZE": "1.13 1.14 1.15 2.2 2.7", "DIV": "1.6 2.3", "EXP": "1.7", "EXPAND_DIMS": "1.10",
    "FULLY_CONNECTED": "1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18 2.21", "GELU": "2.9 2.9",
    "GATHER": "1.6 1.14 1.15 2.4 2.5", "HARD_SWISH": "1.15", "LEAKY_RELU": "1.13 2.3",
    "LOCAL_RESPONSE_NORMALIZATION": "1.5", "LOGISTIC": "1.14 1.14 2.3", "MAX_POOL_2D": "1.5 1.14 2.3",
    "MAXIMUM": "1.14 1.14 2.3 2.3", "MEAN": "1.6 1.14 2.4", "MINIMUM": "1.14 1.14 2.3 2.3",
    "MUL": "1.5 1.14 1.15 2.3 2.6", "NEG": "1.9", "PACK": "1.11 1.14 2.3", "PAD": "1.5 1.14 2.4 2.6",
    "PADV2": "1.9 1.14 2.4 2.6", "POW": "1.10", "QUANTIZE": "1.14 1.15 2.7", "RELU": "1.5 2.1 2.5",
    "RELU6": "1.5 1.14 2.5", "RESHAPE": "1.5", "RESIZE_BILINEAR": "1.7 1.14 2.2 2.5",
    "RESIZE_NEAREST_NEIGHBOR": "1.13 1.14 2.3 2.4", "RSQRT": "1.10 2.5", "SHAPE": "1.10",
    "SLICE": "1.14 1.14 1.14 2.4 2.5", "SOFTMAX": "1.5 1.14 2.3", "SPLIT": "1.5 1.14 1.14 2.3",
    "SPLIT_V": "1.13 2.3", "SQRT": "1.10", "SQUARE": "1.12", "SQUARED_DIFFERENCE": "1.13 2.5",
    "SQUEEZE": "1.6 2.5", "STRIDED_SLICE": "1.6 1.14 2.1 2.2 2.5 2.6", "SUB": "1.6 1.14 2.3 2.4 2.4",
    "SUM": "1.10 1.15", "TANH": "1.14 1.14 2.3", "TILE": "1.10 2.2 2.8", "TRANSPOSE": "1.6 1.14 1.15 2.3 2.4",
    "TRANSPOSE_CONV": "1.9 2.2 2.3 2.13",
    "UNPACK": "1.11 1.14 2.2 2.3",
    "EQUAL": "1.14 1.14 2.3 2.13", "FLOOR": "1.9", "FLOOR_DIV": "1.14 1.14 2.13", "FLOOR_MOD": "1.13 2.13",
    "GREATER": "1.14 1.14", "GREATER_EQUAL": "1.14 1.14 2.13", "LESS": "1.14 1.14 2.13",
    "LESS_EQUAL": "1.14 1.14", "LOGICAL_AND": "1.11", "NOT_EQUAL": "1.14 1.14 2.3", "REDUCE_ANY": "1.11",
    "REDUCE_MAX": "1.11 1.14 2.5", "REDUCE_MIN": "1.11 1.14 2.5", "REVERSE_V2": "1.14 2.2 2.5",
    "SELECT": "1.14 1.14 2.12 2.12", "SELECT_V2": "2.2 2.12", "TOPK_V2": "1.7 1.14 2.13", "WHILE": "1.15",
}  # fmt: skip
VERSIONS = {  # of operators, by the types that they take; "" for those that are not named
    "int8": {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "EXPAND_DIMS": 1, "FULLY_CONNECTED": 4, "HARD_SWISH": 1,
             "POW": 1, "QUANTIZE": 1, "RESHAPE": 1, "": 2},
    "int16": {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "MUL": 4, "RESHAPE": 1, "SUB": 5,
              "RESIZE_BILINEAR": 4,
              "QUANTIZE": 2, "SPLIT": 4, "STRIDED_SLICE": 4, "TRANSPOSE": 5, "": 3},
    "float with int8 weights": {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12,
                                "TRANSPOSE_CONV": 2, "": 1},
    "float": {"": 1},
}  # fmt: skip


def set_versions(model: schema.ModelT) -> None:
    """Gives each operator the version that its types need; litert-quantizer leaves all at 1."""
    codes, places, used = [], {}, []
    for graph, operator in ((owner, operator) for owner in model.subgraphs for operator in owner.operators):
        name = flatbuffer.operator_name(model, operator)
        code = model.operatorCodes[operator.opcodeIndex]
        types = [graph.tensors[i].type for i in (*operator.inputs, *operator.outputs) if i >= 0]
        version = max(code.version, _version(name, types))
        key = max(code.builtinCode, code.deprecatedBuiltinCode), version
        if key not in places:
            places[key] = len(codes)
            codes.append(schema.OperatorCodeT())
            codes[-1].builtinCode, codes[-1].version = key
            codes[-1].deprecatedBuiltinCode = min(key[0], 127)
            codes[-1].customCode = code.customCode
        operator.opcodeIndex = places[key]
        used.append((name, key[1]))
    model.operatorCodes = codes
    oldest = oldest_runtime(used)
    for entry in model.metadata or ():
        if oldest and entry.name == b"min_runtime_version":
            text = f"{oldest}.0".encode().ljust(16, b"\0")
            model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)


def _version(name, types) -> int:
    """The first version of an operator that takes these types of inputs and outputs."""
    first_and_last = {types[0], types[-1]}
    if schema.TensorType.INT16 in first_and_last:
        kind = "int16"
    elif schema.TensorType.INT8 in first_and_last:
        kind = "int8"
    else:
        kind = "float with int8 weights" if {*types} & {*flatbuffer.SMALL_WEIGHTS} else "float"
    if name == "QUANTIZE" and schema.TensorType.FLOAT32 not in first_and_last:  # from integers to integers
        return 2
    return VERSIONS[kind].get(name, VERSIONS[kind][""])


def oldest_runtime(operators: Iterable[tuple[str, int]]) -> str:
    """The oldest TFLite release that has all operators, by name and version; "" where one is in no table."""
    releases = []
    for name, version in operators:
        known = RUNTIMES.get(name, "").split()
        if not 0 < version <= len(known):
            return ""
        releases.append(tuple(map(int, known[version - 1].split("."))))
    return ".".join(map(str, max(releases)))
