"""Parts of a file that delegates and compilers accept."""

import contextlib
import io
from collections import Counter

from ai_edge_litert.compiled_model import CompiledModel

from kvision.stderr import without_lines
from kvision_export import runner


def xnnpack(content: bytes) -> tuple[int, dict[str, int]]:
    """The number of parts of the graph that XNNPACK runs, and the operators that it leaves, by name."""
    operators = runner.allocated(content)._get_ops_details()
    delegates = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    inside = _inside(operators, delegates)
    left = Counter(
        operator["op_name"]
        for operator in operators
        if operator["op_name"] != "DELEGATE" and operator["index"] not in inside
    )
    return len(delegates), dict(sorted(left.items()))


def _inside(operators, delegates) -> set[int]:
    """The operators that delegates replace: what their outputs need, back to their inputs."""
    producers = {
        int(i): operator
        for operator in operators
        if operator["op_name"] != "DELEGATE"
        for i in operator["outputs"]
    }
    inside = set()
    for delegate in delegates:
        inputs, todo = {int(i) for i in delegate["inputs"]}, [int(i) for i in delegate["outputs"]]
        while todo:
            operator = producers.get(todo.pop())
            if operator is None or operator["index"] in inside:
                continue
            inside.add(operator["index"])
            todo += [int(i) for i in operator["inputs"] if int(i) not in inputs]
    return inside


def accelerated(content: bytes) -> bool | None:
    """Whether LiteRT's `CompiledModel` calls a file fully accelerated; None where it cannot be compiled."""
    # LiteRT raises where it has no accelerator for this processor.
    with without_lines(""), contextlib.suppress(Exception):
        return bool(CompiledModel.from_buffer(content).is_fully_accelerated())
    return None


def gpu(content: bytes) -> str:
    """Verdict of TensorFlow's analyzer on the GPU delegate; "" where TensorFlow is missing."""
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
