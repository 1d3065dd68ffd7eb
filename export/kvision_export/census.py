"""Contents of a `.tflite` file, which runtimes have its operators, and what runs where.

The oldest runtimes and the versions of int8 operators are those of LiteRT's
tflite/converter/tools/versioning/runtime_version.cc and op_version.cc.
"""

import contextlib
import dataclasses
import io
from collections import Counter
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.compiled_model import CompiledModel

from kvision._stderr import without_lines
from kvision.errors import UserError
from kvision_export import contents, flatbuffer, metadata, verify

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
}  # fmt: skip
VERSIONS = {  # of an operator, by the types that it takes; "" for those that are not named
    "int8": {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "EXPAND_DIMS": 1, "FULLY_CONNECTED": 4, "HARD_SWISH": 1,
             "POW": 1, "QUANTIZE": 1, "RESHAPE": 1, "": 2},
    "int16": {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "MUL": 4, "RESHAPE": 1, "SUB": 5,
              "RESIZE_BILINEAR": 4,
              "QUANTIZE": 2, "SPLIT": 4, "STRIDED_SLICE": 4, "TRANSPOSE": 5, "": 3},
    "float with int8 weights": {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12,
                                "TRANSPOSE_CONV": 2, "": 1},
    "float": {"": 1},
}  # fmt: skip
FORBIDDEN = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CUSTOM")


@dataclasses.dataclass(frozen=True)
class Census:
    """Contents of a file.

    Attributes:
        operators: how often each operator occurs, by "NAME vVERSION".
        computed_in, stored_as: types of values and of weights, see `contents`.
        input, output: the file's ends.
        faults: sentences; a good file has none.
        runtime: the oldest TFLite release that has all operators; "" where one is not in the table.
        sections: bytes of "weights", "labels and metadata", and "graph".
        partitions: pieces of the graph that XNNPACK runs.
        left_out: operators that XNNPACK leaves to the runtime's own kernels, by name.
        accelerated: whether LiteRT's `CompiledModel` calls the file fully accelerated; None where it
            cannot be compiled.
        gpu: what TensorFlow's analyzer says of the GPU delegate; "" where TensorFlow is missing.
        metadata: what the file says of itself, see `metadata.read`.
    """

    operators: dict[str, int]
    computed_in: dict[str, dict[str, int]]
    stored_as: dict[str, int]
    input: contents.End
    output: contents.End
    faults: list[str]
    runtime: str
    sections: dict[str, int]
    partitions: int
    left_out: dict[str, int]
    accelerated: bool | None
    gpu: str
    metadata: dict


def take(path: Path) -> Census:
    """The census of a file.

    Raises:
        ValueError: it is no TFLite file that can be read.
    """
    content = Path(path).read_bytes()
    if content[4:8] != b"TFL3":
        raise UserError(f"{str(path)!r} is no TFLite file.")
    try:
        return of(content)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise UserError(f"{str(path)!r} is a damaged TFLite file: {error}.") from None


def of(content: bytes) -> Census:
    """The census of a file's content."""
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    names = [flatbuffer.operator_name(model, operator) for operator in graph.operators]
    versions = [model.operatorCodes[operator.opcodeIndex].version for operator in graph.operators]
    faults = find_faults(model)
    partitions, left_out, accelerated, gpu = 0, {}, None, ""
    if not faults:
        partitions, left_out = _partitions(content)
        accelerated, gpu = _accelerated(content), _gpu(content)
    weights = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    about = metadata.size(content)
    start, end = contents.ends(model)
    return Census(
        operators=dict(sorted(Counter(map("{} v{}".format, names, versions)).items())),
        computed_in=contents.computed_in(model),
        stored_as=contents.stored_as(model),
        input=start,
        output=end,
        faults=faults,
        runtime=runtime(zip(names, versions, strict=True)),
        sections={
            "weights": weights - about[0],
            "labels and metadata": sum(about),
            "graph": len(content) - weights - about[1],
        },
        partitions=partitions,
        left_out=left_out,
        accelerated=accelerated,
        gpu=gpu,
        metadata=metadata.read(content),
    )


def _accelerated(content) -> bool | None:
    # LiteRT raises where it has no accelerator for this processor.
    with without_lines(""), contextlib.suppress(Exception):
        return bool(CompiledModel.from_buffer(content).is_fully_accelerated())
    return None


def find_faults(model: schema.ModelT) -> list[str]:
    """Faults, which no file that was converted well has: variables, custom operators, or a detour by floats.

    Pixels may take one: XNNPACK runs both of its operators, but none from uint8 to int8.
    """
    faults = []
    if len(model.subgraphs) > 1:
        faults.append(
            f"{len(model.subgraphs)} subgraphs, of loops (`unroll=True` unrolls an RNN); 1 was expected."
        )
    graph = model.subgraphs[0]
    names = [flatbuffer.operator_name(model, operator) for operator in graph.operators]
    for name in FORBIDDEN:
        if count := names.count(name):
            faults.append(f"{count} {name} operators, which phones' runtimes do not have built in.")
    for operator, name in zip(graph.operators, names, strict=True):
        if name == "DEQUANTIZE" and _is_computed(model, operator.inputs[0]):
            behind = flatbuffer.consumers(graph, operator.outputs[0])
            if behind and all(flatbuffer.operator_name(model, op) == "QUANTIZE" for op in behind):
                tensor = graph.tensors[operator.outputs[0]].name.decode()
                faults.append(f"{tensor} is dequantized only to be quantized again.")
    return faults


def _is_computed(model, index) -> bool:
    return index not in model.subgraphs[0].inputs and not flatbuffer.is_constant(model, index)


def set_versions(content: bytes) -> bytes:
    """Gives each operator the version that its types need; litert-quantizer leaves all at 1."""
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    codes, places = [], {}
    for operator in graph.operators:
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
    model.operatorCodes = codes
    names = [flatbuffer.operator_name(model, operator) for operator in graph.operators]
    oldest = runtime(zip(names, (codes[op.opcodeIndex].version for op in graph.operators), strict=True))
    for entry in model.metadata or ():
        if oldest and entry.name == b"min_runtime_version":
            text = f"{oldest}.0".encode().ljust(16, b"\0")
            model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
    return flatbuffer.write(model)


def _version(name, types) -> int:
    """The first version of an operator that takes these types of inputs and outputs."""
    ends = {types[0], types[-1]}
    if schema.TensorType.INT16 in ends:
        kind = "int16"
    elif schema.TensorType.INT8 in ends:
        kind = "int8"
    else:
        kind = "float with int8 weights" if {*types} & {*flatbuffer.SMALL_WEIGHTS} else "float"
    if name == "QUANTIZE" and schema.TensorType.FLOAT32 not in ends:  # from integers to integers
        return 2
    return VERSIONS[kind].get(name, VERSIONS[kind][""])


def runtime(operators) -> str:
    """The oldest TFLite release that has all of some operators' names and versions."""
    releases = []
    for name, version in operators:
        known = RUNTIMES.get(name, "").split()
        if not 0 < version <= len(known):
            return ""
        releases.append(tuple(map(int, known[version - 1].split("."))))
    return ".".join(map(str, max(releases)))


def _partitions(content) -> tuple[int, dict[str, int]]:
    operators = verify.allocated(content)._get_ops_details()
    delegates = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    inside = _inside(operators, delegates)
    left = Counter(
        operator["op_name"]
        for operator in operators
        if operator["op_name"] != "DELEGATE" and operator["index"] not in inside
    )
    return len(delegates), dict(sorted(left.items()))


def _inside(operators, delegates) -> set[int]:
    """The operators that a delegate replaces: what its outputs need, back to its inputs."""
    producers = {
        int(i): operator
        for operator in operators
        if operator["op_name"] != "DELEGATE"
        for i in operator["outputs"]
    }
    inside = set()
    for delegate in delegates:
        ends, todo = {int(i) for i in delegate["inputs"]}, [int(i) for i in delegate["outputs"]]
        while todo:
            operator = producers.get(todo.pop())
            if operator is None or operator["index"] in inside:
                continue
            inside.add(operator["index"])
            todo += [int(i) for i in operator["inputs"] if int(i) not in ends]
    return inside


def _gpu(content) -> str:
    try:
        import tensorflow as tf
    except ImportError:
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        tf.lite.experimental.Analyzer.analyze(model_content=content, gpu_compatibility=True)
    lines = [line.strip() for line in printed.getvalue().splitlines() if "GPU" in line]
    if any("looks compatible" in line for line in lines):
        return "compatible with the delegate, says TensorFlow's analyzer"
    return " ".join(dict.fromkeys(lines))
