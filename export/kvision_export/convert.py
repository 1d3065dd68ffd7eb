"""From a Keras model to float TFLite files."""

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kvision import networks
from kvision.errors import FULL_DISK, UserError, naming
from kvision_export import flatbuffer, inputs
from kvision_export.modes import UNROLLED

OUTPUT, SIGNATURE = "probabilities", "serving_default"
FLOATS = ("float32", "float16", "dynamic")
PEER = "TFLiteConverter"  # its own int8 file, to compare with
SMALL = 2**14  # elements of a variable that is written as a constant, which takes TensorFlow less time

STATELESS = "The answer of a network that is exported must depend on its images alone."


def convert(model: keras.Model, mode: str = "float32") -> bytes:
    """Converts a model with batch 1 and built-in operators only.

    A batch of unknown size would leave SHAPE and PACK operators behind, and a model handed to the
    converter as a concrete function loses its variables without a word; hence the SavedModel.

    Args:
        model: from `(batch, height, width, channels)`, of fixed size, or a dict of these and proposals, to
            probabilities, or to a dict of several outputs by their names.
        mode: "float32"; "float16" (weights; computes in float32 where there is no float16); or
            "dynamic" (int8 weights, activations quantized as they come).

    Returns:
        The `.tflite` file: float32 `image` in, and `proposals` behind it; float32 `probabilities` out, or the
        outputs by their names and in their order.
    """
    with _saved(model) as folder:
        return _in_order(_converted(folder, mode), model)


def convert_apart(
    model: keras.Model, modes: Sequence[str], images: np.ndarray | None = None, output: str = OUTPUT
) -> dict[str, bytes]:
    """`convert` for several modes, in a process of its own: the converter crashes on some networks.

    Args:
        model: see `convert`.
        modes: modes of `convert`, and `PEER` as the last.
        images: float32 `(images, height, width, channels)`, see `inputs`, with which `PEER` calibrates.
        output: name of the output of a model that has one alone.

    Returns:
        The files by mode; `PEER` is among them only where its file can be made.

    Raises:
        UserError: the model cannot be converted.
    """
    with _saved(model, output) as folder:
        if images is not None:
            with naming(folder):
                np.save(folder / "images.npy", images)
        command = [sys.executable, "-m", "kvision_export.convert", str(folder), *modes]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ  # so that its last line is the reason
        child = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        converted = [mode for mode in modes if (folder / f"{mode}.tflite").exists()]
        if child.returncode in FULL_DISK:
            raise OSError(child.returncode, os.strerror(child.returncode), str(folder))
        if {*modes} - {*converted, PEER}:
            raise UserError(f"{model.name} cannot be converted: {_reason(child)}")
        return {mode: _in_order((folder / f"{mode}.tflite").read_bytes(), model) for mode in converted}


def files(
    model: keras.Model, forms: Sequence[str], images: np.ndarray | None = None, output: str = OUTPUT
) -> dict[str, bytes]:
    """The files of some forms, see `convert_apart`: loops are in none of those that integers are made of."""
    flat, first = networks.unrolled(model) if {*forms} & {UNROLLED, PEER} else model, FLOATS[0]
    if flat is model:
        made = convert_apart(model, [form for form in forms if form != UNROLLED], images, output)
        return made | {UNROLLED: made[first]}
    made = convert_apart(model, [form for form in forms if form in FLOATS], output=output)
    return made | convert_apart(flat, [form for form in forms if form not in FLOATS], images, output)


def _reason(child) -> str:
    if child.returncode < 0:
        return f"the converter was ended by {signal.Signals(-child.returncode).name}."
    lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("Flex ops:", "error:")) or "Error:" in line]
    return (reasons or lines or ["no reason given"])[-1]


@contextlib.contextmanager
def _saved(model, output=OUTPUT) -> Iterator[Path]:
    if None in (size := networks.image_shape(model)[1:]):
        raise UserError(f"{model.name} has no fixed input size: {size}.")

    def spec(name, tensor):
        dtype = tf.int32 if tensor.dtype == "int32" else tf.float32
        return tf.TensorSpec((1, *tensor.shape[1:]), dtype, name=name)

    if len(model.inputs) > 1:  # the converter sorts inputs by their names
        signature = {name: spec(name, tensor) for name, tensor in model.input.items()}
    else:
        signature = spec(inputs.name_of(networks.image_shape(model)), model.inputs[0])
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, _with_constants(model, output), [signature])
        try:
            archive.write_out(folder, verbose=False)
        except (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) as error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder) from error
        yield Path(folder)


def _with_constants(model, output):
    """The function from images to a model's outputs, in whose graph small variables are constants."""
    small = [(v, v.numpy()) for v in model.variables if math.prod(v.shape) <= SMALL]

    def call(given):
        with keras.StatelessScope([(v, tf.constant(value)) for v, value in small]) as scope:
            before = [*map(scope.get_current_value, model.variables)]
            outputs = model(given, training=False)
            after = [*map(scope.get_current_value, model.variables)]
        if any(a is not b for a, b in zip(after, before, strict=True)):
            raise UserError(f"{model.name} changes its own variables when it is called. {STATELESS}")
        return outputs if isinstance(outputs, dict) else {output: outputs}

    return call


def _in_order(content, model) -> bytes:
    """A file whose outputs are in the model's order; the converter sorts them by their names."""
    if len(model.outputs) == 1:
        return content
    names = [name.encode() for name in model.output]
    file = flatbuffer.read(content)
    (signature,) = file.signatureDefs
    signature.outputs.sort(key=lambda output: names.index(output.name))
    file.subgraphs[0].outputs = np.array([output.tensorIndex for output in signature.outputs], np.int32)
    return flatbuffer.write(file)


def _as_it_is(converter, folder):
    pass


def _with_small_weights(converter, folder):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _with_float16(converter, folder):
    _with_small_weights(converter, folder)
    converter.target_spec.supported_types = [tf.float16]


def _with_integers(converter, folder):
    _with_small_weights(converter, folder)
    images = np.load(folder / "images.npy")
    fed = [[part[None] for part in inputs.named(image).values()] for image in images]
    converter.representative_dataset = lambda: iter(fed)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8


SETTINGS = {
    "float32": _as_it_is,
    UNROLLED: _as_it_is,
    "float16": _with_float16,
    "dynamic": _with_small_weights,
    PEER: _with_integers,
}


def _converted(folder, mode) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    SETTINGS[mode](converter, folder)
    return converter.convert()


if __name__ == "__main__":
    saved = Path(sys.argv[1])
    for asked in sys.argv[2:]:
        part = saved / f"{asked}.part"
        try:
            part.write_bytes(_converted(saved, asked))
        except OSError as error:
            if error.errno in FULL_DISK:
                sys.exit(error.errno)
            raise
        part.rename(saved / f"{asked}.tflite")
