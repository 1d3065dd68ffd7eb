"""Running `.tflite` files, and single operators of them, in LiteRT's interpreter."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kvision.stderr import without_lines
from kvision_export import flatbuffer, inputs

THREADS = 2
# With two threads, LiteRT's own kernel of "same" convolutions computes one place alone where the kernel is
# even and as large as the image, and leaves the others as they were.
NOT_DELEGATED = {
    "num_threads": 1,
    "experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


def allocated(content: bytes | Path, threads: int | None = None) -> Interpreter:
    """An interpreter of a file with XNNPACK, ready to be fed."""
    source = {"model_content": content} if isinstance(content, bytes) else {"model_path": str(content)}
    interpreter = Interpreter(**source, num_threads=threads)
    with without_lines("INFO: Created TensorFlow Lite XNNPACK delegate"):
        interpreter.allocate_tensors()
    return interpreter


def open_file(
    content: bytes | Path, threads: int, pixels: bool = True
) -> tuple[Interpreter, Callable[[np.ndarray], None]]:
    """An interpreter of a file, and the function that feeds it an image; arguments as for `predict`."""
    interpreter = allocated(content, threads)

    def feed(image):
        for details, values in _by_input(interpreter, image):
            interpreter.set_tensor(details["index"], as_input(values, details, pixels))

    return interpreter, feed


def as_input(values: np.ndarray, details: dict, pixels: bool) -> np.ndarray:
    """An image's values as the input with such details takes them; see `predict`."""
    dtype = details["dtype"]
    if dtype != np.float32:
        limits, by_scale = np.iinfo(dtype), details["quantization"]
        scale, zero_point = (1.0, -128 if dtype == np.int8 else 0) if pixels else by_scale
        values = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max)
    return values.astype(dtype)[None]


def _by_input(interpreter, image):
    """Pairs of an input's details and an image's values for it."""
    return zip(interpreter.get_input_details(), inputs.named(image).values(), strict=True)


def outputs(content: bytes | Path, images: Iterable[np.ndarray], pixels: bool = True) -> Iterator[np.ndarray]:
    """A file's first output for each image, one at a time; arguments as for `predict`."""
    interpreter, feed = open_file(content, THREADS, pixels)
    details = interpreter.get_output_details()[0]
    scale, zero_point = details["quantization"]
    for image in images:
        feed(image)
        interpreter.invoke()
        output = interpreter.get_tensor(details["index"])[0].astype(np.float32)
        yield (output - zero_point) * np.float32(scale) if scale else output


def named_outputs(
    content: bytes, images: Iterable[np.ndarray], pixels: bool = True
) -> Iterator[dict[str, np.ndarray]]:
    """A file's outputs by their names, of floats, for each image; arguments as for `predict`."""
    interpreter, feed = open_file(content, THREADS, pixels)
    (signature,) = flatbuffer.read(content).signatureDefs
    indices = {output.name.decode(): output.tensorIndex for output in signature.outputs}
    for image in images:
        feed(image)
        interpreter.invoke()
        yield {name: interpreter.get_tensor(index)[0] for name, index in indices.items()}


def predict(content: bytes | Path, images: Iterable[np.ndarray], pixels: bool = True) -> np.ndarray:
    """A file's first output, as float32 `(images, ...)`.

    Args:
        content: the file.
        images: float32 `(height, width, channels)` in [0, 255], see `inputs`.
        pixels: whether an integer input takes them rounded; else quantized by the input's own scale.
    """
    return np.stack([*outputs(content, images, pixels)])


def tensor_values(content: bytes, images: Iterable[np.ndarray]) -> Iterator[Callable[[int], np.ndarray]]:
    """For each image, a function from a tensor's index to the values that a file computes.

    Nothing is delegated, so that every tensor can be had; the values are good until the next image.

    Args:
        content: the file.
        images: float32 `(height, width, channels)`, as the file takes them, see `inputs`.
    """
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True, **NOT_DELEGATED)
    interpreter.allocate_tensors()
    for image in images:
        for details, values in _by_input(interpreter, image):
            interpreter.set_tensor(details["index"], values[None])
        interpreter.invoke()
        yield interpreter.get_tensor


def operator_alone(
    model: schema.ModelT, operator: schema.OperatorT, given: Sequence[int]
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """A function that runs one operator of a model: from the values of its `given` inputs to its outputs.

    Args:
        model: file with the constants that the operator reads.
        operator: one of its operators.
        given: indices of its non-constant inputs.
    """
    graph, loops = model.subgraphs[0], []
    if flatbuffer.operator_name(model, operator) == "WHILE":
        loops = copy.deepcopy(model.subgraphs[1:])
    places = {}
    subgraph, single = schema.SubGraphT(), schema.ModelT()
    subgraph.tensors, single.buffers = [], [schema.BufferT()]
    for index in (int(i) for i in (*operator.inputs, *operator.outputs) if i >= 0):
        if index in places:
            continue
        tensor = copy.copy(graph.tensors[index])
        data, tensor.buffer = model.buffers[tensor.buffer].data, 0
        if data is not None and len(data):
            tensor.buffer = len(single.buffers)
            single.buffers.append(schema.BufferT())
            single.buffers[-1].data = data
        places[index] = len(subgraph.tensors)
        subgraph.tensors.append(tensor)
    step = copy.copy(operator)
    step.opcodeIndex = 0
    step.inputs = np.array([places.get(int(i), -1) for i in operator.inputs], np.int32)
    step.outputs = np.array([places[int(i)] for i in operator.outputs], np.int32)
    subgraph.operators, subgraph.outputs = [step], step.outputs
    subgraph.inputs = np.array([places[int(i)] for i in given], np.int32)
    for tensor in (tensor for loop in loops for tensor in loop.tensors):
        buffer = schema.BufferT()
        buffer.data, tensor.buffer = model.buffers[tensor.buffer].data, len(single.buffers)
        single.buffers.append(buffer)
    single.version, single.subgraphs = 3, [subgraph, *loops]
    single.operatorCodes = [model.operatorCodes[operator.opcodeIndex], *model.operatorCodes]
    for inner in (inner for loop in loops for inner in loop.operators):
        inner.opcodeIndex += 1
    for buffer in single.buffers:
        buffer.offset = buffer.size = 0
    interpreter = Interpreter(model_content=flatbuffer.write(single), **NOT_DELEGATED)
    interpreter.allocate_tensors()

    def call(values):
        for index, value in zip(subgraph.inputs, values, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in subgraph.outputs]

    return call


def quantized(values: np.ndarray, tensor: schema.TensorT) -> np.ndarray:
    """Real values as a tensor holds them: rounded to its integers, unless it is one of floats."""
    if tensor.type == schema.TensorType.FLOAT32:
        return values
    dtype = flatbuffer.DTYPES[tensor.type]
    scale, zero_point = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantized(values: np.ndarray, tensor: schema.TensorT) -> np.ndarray:
    """The real values, float32, of what a tensor holds."""
    if tensor.type == schema.TensorType.FLOAT32:
        return values
    scale, zero_point = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
