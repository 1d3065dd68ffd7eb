"""Census of a `.tflite` file: its contents, which runtimes have its operators, and what runs where."""

import dataclasses
from collections import Counter
from pathlib import Path

from kvision.errors import UserError
from kvision_export import contents, delegates, flatbuffer, metadata
from kvision_export.faults import find_faults
from kvision_export.versions import oldest_runtime


@dataclasses.dataclass(frozen=True)
class Census:
    """Contents of a file.

    Attributes:
        operators: number of operators by "NAME vVERSION", those inside loops included.
        computed_in, stored_as: types of values and of weights, see `contents`.
        input, output: dtypes of the file's input and of its output.
        faults: sentences; a good file has none.
        runtime: the oldest TFLite release that has all operators; "" where one is not in the table.
        sections: bytes of "weights", "labels and metadata", and "graph".
        partitions: pieces of the graph that XNNPACK runs.
        left_out: operators that XNNPACK leaves to the runtime's own kernels, by name.
        accelerated: whether LiteRT's `CompiledModel` calls the file fully accelerated; None where it
            cannot be compiled.
        gpu: verdict of TensorFlow's analyzer on the GPU delegate; "" where TensorFlow is missing.
        metadata: what the file says of itself, see `metadata.read`.
    """

    operators: dict[str, int]
    computed_in: dict[str, dict[str, int]]
    stored_as: dict[str, int]
    input: contents.IODtype
    output: contents.IODtype
    faults: list[str]
    runtime: str
    sections: dict[str, int]
    partitions: int
    left_out: dict[str, int]
    accelerated: bool | None
    gpu: str
    metadata: dict


def read(path: Path) -> Census:
    """The census of a file.

    Raises:
        UserError: the file is not a TFLite file, or is damaged.
    """
    content = Path(path).read_bytes()
    if content[4:8] != b"TFL3":
        raise UserError(f"{str(path)!r} is not a TFLite file.")
    try:
        return census_of(content)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise UserError(f"{str(path)!r} is a damaged TFLite file: {error}.") from None


def census_of(content: bytes) -> Census:
    """The census of a file's content."""
    model = flatbuffer.read(content)
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    names = [flatbuffer.operator_name(model, operator) for operator in operators]
    versions = [model.operatorCodes[operator.opcodeIndex].version for operator in operators]
    faults = find_faults(model)
    partitions, left_out, accelerated, gpu = 0, {}, None, ""
    if not faults:
        partitions, left_out = delegates.xnnpack(content)
        accelerated, gpu = delegates.accelerated(content), delegates.gpu(content)
    weights = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    table, archive = metadata.sizes(model, content)
    given, output = contents.io_dtypes(model)
    return Census(
        operators=dict(sorted(Counter(map("{} v{}".format, names, versions)).items())),
        computed_in=contents.computed_in(model),
        stored_as=contents.stored_as(model),
        input=given,
        output=output,
        faults=faults,
        runtime=oldest_runtime(zip(names, versions, strict=True)),
        sections={
            "weights": weights - table,
            "labels and metadata": table + archive,
            "graph": len(content) - weights - archive,
        },
        partitions=partitions,
        left_out=left_out,
        accelerated=accelerated,
        gpu=gpu,
        metadata=metadata.read(model, content),
    )
