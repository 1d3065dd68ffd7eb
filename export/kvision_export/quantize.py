"""From a float `.tflite` file to one of integers, by litert-quantizer or by TensorFlow's own quantizer."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterable, Mapping

import numpy as np
from absl import logging
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import quantizer, recipe
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.qtyping import TFLOperationName

from kvision.errors import UserError
from kvision_export import flatbuffer

Scopes = Iterable[str]
SCALE = 4e-9  # at the least; the 6 of RELU6 in it must be an int32
HEADROOM = 2.006  # of 16 bits, for images that reach further; no power of two, which ADD's kernel may refuse


def quantize(
    content: bytes,
    ranges: Mapping[int, tuple[float, float]],
    *,
    backend: str = "litert",
    bits: int = 8,
    floats: Scopes = (),
) -> bytes:
    """int8 weights, and activations of 8 or 16 bits; the file's ends stay float32.

    Args:
        content: a float `.tflite` file.
        ranges: of each of its computed tensors, by index: `Ranges.find`.
        backend: one of `choices.BACKENDS`.
        bits: of the activations, 8 or 16.
        floats: names of tensors whose operators stay float.

    Raises:
        ValueError: the quantizer cannot do it.
    """
    model = flatbuffer.read(content)
    least = SCALE * 2**bits
    ranges = {index: (low, max(high, low + least)) for index, (low, high) in ranges.items()}
    if bits == 16:  # without a zero point
        ends = {index: HEADROOM * max(-low, high) for index, (low, high) in ranges.items()}
        ranges = {index: (-end, end) for index, end in ends.items()}
    if backend == "tf":
        with _refusals():
            return _by_tensorflow(model, ranges, bits, floats)
    quantization = quantizer.Quantizer(bytearray(content))
    quantization.load_quantization_recipe(recipe.static_wi8_ai8() if bits == 8 else recipe.static_wi8_ai16())
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):  # QUANTIZE and DEQUANTIZE at the ends
        _exclude(quantization, ".*", end)
    for name in floats:
        _exclude(quantization, f"(^|;){re.escape(name)}(;|$)", TFLOperationName.ALL_SUPPORTED)
    tensors = model.subgraphs[0].tensors
    found = {  # as the library's own calibration gives them
        tensors[index].name.decode(): {
            "min": _of_rank(tensors[index].shape, low),
            "max": _of_rank(tensors[index].shape, high),
        }
        for index, (low, high) in ranges.items()
    }
    with quiet(), _refusals():
        result = quantization.quantize(found, enable_progress_report=False)
    model = flatbuffer.read(bytes(result.quantized_model))
    _set_unread_outputs(model)
    return flatbuffer.write(model)


def _set_unread_outputs(model):
    """Gives parts that nothing reads the type of the other parts; litert-quantizer leaves them float."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        parts = [graph.tensors[i] for i in operator.outputs]
        whole = next((part for part in parts if part.type != schema.TensorType.FLOAT32), None)
        for part in parts if whole else ():
            part.type, part.quantization = whole.type, whole.quantization


def _of_rank(shape, value):
    return np.full(np.ones_like(shape), value, np.float32)


def four_bits(content: bytes) -> bytes:
    """int4 weights of dense layers and int8 weights of convolutions, for activations quantized as they come.

    XNNPACK has kernels of 4 bits for dense layers alone.
    """
    quantization = quantizer.Quantizer(bytearray(content))
    quantization.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    quantization.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, num_bits=4)
    with quiet(), _refusals():
        result = quantization.quantize(enable_progress_report=False)
    return flatbuffer.write(flatbuffer.read(bytes(result.quantized_model)))


def set_ends(content: bytes, dtype: str, zero_point: int) -> bytes:
    """Gives a quantized file the ends it is used with, of raw pixels.

    Args:
        content: what `quantize` returned, from a float32 pixel less `zero_point`.
        dtype: "uint8" for pixels and "float32" for the same as floats, both to float32 probabilities; "int8"
            for pixels less 128, to int8 probabilities.
        zero_point: see `rewrite.fold_normalization`.
    """
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    pixels = graph.tensors[graph.inputs[0]]
    if dtype == "uint8":  # to int8 by floats, bit for bit the same: XNNPACK has no QUANTIZE between integers
        _insert_first(model, "DEQUANTIZE", "float_pixels", [], schema.DequantizeOptionsT())
        pixels.type = schema.TensorType.UINT8
        pixels.quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[zero_point])
    elif dtype == "float32" and zero_point:
        offset = flatbuffer.add_tensor(model, "zero_point", np.float32(-zero_point))
        _insert_first(model, "ADD", "pixel_less_zero_point", [offset], schema.AddOptionsT())
    elif dtype == "int8":
        _strip_ends(model)
    content = flatbuffer.write(model)
    left = [tensor for tensor in graph.tensors if tensor.type == schema.TensorType.FLOAT32]
    if dtype == "int8" and left:
        raise UserError(f"{left[0].name.decode()} has no int8 kernel, so the file would not be all int8.")
    return content


def _insert_first(model, kind, name, constants, options):
    """Inserts an operator between the input, of which it makes floats, and all that read it."""
    graph = model.subgraphs[0]
    start = graph.inputs[0]
    result = flatbuffer.add_tensor(model, name, None, like=start)
    for operator in graph.operators:
        operator.inputs = np.where(operator.inputs == start, result, operator.inputs)
    graph.operators.insert(0, flatbuffer.operator(model, kind, [start, *constants], [result], options))


def _strip_ends(model):
    """Takes off the QUANTIZE and DEQUANTIZE at the ends."""
    graph = model.subgraphs[0]
    for kind, first, ends in (("QUANTIZE", True, "inputs"), ("DEQUANTIZE", False, "outputs")):
        end = graph.operators[0 if first else -1]
        if flatbuffer.operator_name(model, end) != kind:
            raise UserError(f"A network whose ends are float cannot have int8 ends ({kind} was expected).")
        inside = int((end.outputs if first else end.inputs)[0])
        graph.tensors[inside].name = graph.tensors[getattr(graph, ends)[0]].name
        for signature in model.signatureDefs:
            for tensor in signature.inputs if first else signature.outputs:
                tensor.tensorIndex = inside
        setattr(graph, ends, np.array([inside], np.int32))
        graph.operators.remove(end)


def _exclude(quantization, regex, kind):
    quantization.update_quantization_recipe(regex, kind, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _by_tensorflow(model, ranges, bits, floats) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python import convert

    graph = model.subgraphs[0]
    for index, (low, high) in ranges.items():
        graph.tensors[index].quantization = schema.QuantizationParametersT(
            min=np.array([low], np.float32), max=np.array([high], np.float32)
        )
    return flatbuffer.write(
        flatbuffer.read(
            convert.mlir_quantize(
                flatbuffer.write(model),
                inference_type=convert._types_pb2.INT8 if bits == 8 else convert._types_pb2.QUANTIZED_INT16,
                input_data_type=tf.float32,
                output_data_type=tf.float32,
                denylisted_nodes=list(floats) or None,
            )
        )
    )


@contextlib.contextmanager
def _refusals():
    try:
        yield
    except (NotImplementedError, RuntimeError, ValueError) as error:  # what the libraries refuse
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"The network cannot be quantized: {reason:.200}") from None


@contextlib.contextmanager
def quiet():
    """Hides the library's progress bars and its warnings on memory and on channels that are all zero."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
