"""From a float `.tflite` file to one of integers, by litert-quantizer or by TensorFlow's own quantizer."""

import contextlib
import io
import re
import warnings
from collections.abc import Collection, Mapping

import numpy as np
from absl import logging
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import quantizer, recipe
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.qtyping import TFLOperationName

from kvision.errors import UserError
from kvision_export import flatbuffer

Scopes = Collection[str]
SCALE = 4e-9  # at the least; the 6 of RELU6 in it must be an int32
HEADROOM = 2.006  # of 16 bits, for images that reach further; ADD's kernel may refuse powers of two


def quantize(
    content: bytes,
    ranges: Mapping[int, tuple[float, float]],
    *,
    backend: str = "litert",
    bits: int = 8,
    floats: Scopes = (),
) -> schema.ModelT:
    """A file with int8 weights and activations of 8 or 16 bits, whose input and output stay float32.

    Args:
        content: a float `.tflite` file.
        ranges: lowest and highest value of each of its computed tensors, by index: `Ranges.find`.
        backend: one of `choices.BACKENDS`.
        bits: number of the activations' bits, 8 or 16.
        floats: names of tensors whose operators stay float.

    Raises:
        UserError: the quantizer refuses the network.
    """
    model = flatbuffer.read(content)
    least = SCALE * 2**bits
    ranges = {index: (low, max(high, low + least)) for index, (low, high) in ranges.items()}
    if bits == 16:  # without a zero point
        limits = {index: HEADROOM * max(-low, high) for index, (low, high) in ranges.items()}
        ranges = {index: (-limit, limit) for index, limit in limits.items()}
    if backend == "tf":
        with _refusals():
            return _by_tensorflow(model, ranges, bits, floats)
    quantization = quantizer.Quantizer(bytearray(content))
    quantization.load_quantization_recipe(recipe.static_wi8_ai8() if bits == 8 else recipe.static_wi8_ai16())
    for kind in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):  # QUANTIZE and DEQUANTIZE
        _exclude(quantization, ".*", kind)
    if floats:  # in one expression: each operator is compared with all, and Python keeps 512 compiled ones
        names = "|".join(map(re.escape, floats))
        _exclude(quantization, f"(^|;)({names})(;|$)", TFLOperationName.ALL_SUPPORTED)
    tensors = model.subgraphs[0].tensors
    calibration = {  # as the library's own calibration gives it
        tensors[index].name.decode(): {
            "min": _of_rank(tensors[index].shape, low),
            "max": _of_rank(tensors[index].shape, high),
        }
        for index, (low, high) in ranges.items()
    }
    with quiet(), _refusals():
        result = quantization.quantize(calibration, enable_progress_report=False)
    model = flatbuffer.read(bytes(result.quantized_model))
    _set_unread_outputs(model)
    return model


def _set_unread_outputs(model):
    """Gives parts that nothing reads the type of the other parts; litert-quantizer leaves them float."""
    graph, integers = model.subgraphs[0], (schema.TensorType.INT8, schema.TensorType.INT16)
    for operator in graph.operators:
        parts = [graph.tensors[i] for i in operator.outputs]
        whole = next((part for part in parts if part.type in integers), None)
        if whole:
            for part in parts:
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


def _exclude(quantization, regex, kind):
    quantization.update_quantization_recipe(regex, kind, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _by_tensorflow(model, ranges, bits, floats) -> schema.ModelT:
    import tensorflow as tf
    from tensorflow.lite.python import convert

    graph = model.subgraphs[0]
    for index, (low, high) in ranges.items():
        graph.tensors[index].quantization = schema.QuantizationParametersT(
            min=np.array([low], np.float32), max=np.array([high], np.float32)
        )
    return flatbuffer.read(
        convert.mlir_quantize(
            flatbuffer.write(model),
            inference_type=convert._types_pb2.INT8 if bits == 8 else convert._types_pb2.QUANTIZED_INT16,
            input_data_type=tf.float32,
            output_data_type=tf.float32,
            denylisted_nodes=list(floats) or None,
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
