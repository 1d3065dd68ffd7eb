"""Advice on files follows from their contents and from the measurements."""

import dataclasses

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import randomized, tiny
from tflite import images, int8

from kvision import networks
from kvision.spec import PLUS_MINUS_ONE, Preprocess
from kvision.tasks import Accuracy, Score
from kvision_export import advice, flatbuffer, metadata, quantize, runner, verify
from kvision_export.census import census_of
from kvision_export.convert import convert
from kvision_export.files import File


@pytest.fixture(scope="module")
def contents():
    model = randomized(tiny("resnet18", preprocess=PLUS_MINUS_ONE))
    files = {mode: convert(model, mode) for mode in ("float32", "float16", "dynamic")}
    files |= {dtype: int8(files["float32"], images(), io_dtype=dtype) for dtype in ("uint8", "int8")}
    preprocess = networks.preprocess_of(model)
    about = metadata.About("tiny", "", "", ("a", "b", "c"), 3, (64, 64), preprocess)
    return {name: metadata.write(flatbuffer.read(content), about) for name, content in files.items()}


@pytest.fixture(scope="module")
def files(contents):
    """The files as if all were measured to be alike."""
    near = verify.Fidelity(0.975, 0, 40, 0, 0, [])
    right = Accuracy({"top-1": Score(0.9, (0, 1))}, 0.0, (0, 0))
    return {
        name: File(
            name, f"{name}.tflite", 100, right, near, {1: 2.0}, {1: 2.0}, "", "", [], census_of(content)
        )
        for name, content in contents.items()
    }


def test_what_is_inside(files):
    said = {name: advice.inside(file.census) for name, file in files.items()}
    count = sum(files["float32"].census.operators.values())
    assert said["float32"] == f"Weights are float32. {count} operators compute in float32."
    assert said["float16"] == f"Weights are float16. {count} operators compute in float32."
    assert " in int8 on activations that are quantized as they come (8 CONV_2D)" in said["dynamic"]
    assert said["uint8"].endswith(" operators compute in int8 and 1 in float32 (1 SOFTMAX).")
    assert said["int8"].endswith(" operators compute in int8.")
    assert "int8 with a scale for each channel" in said["int8"]


def test_what_accelerators_of_integers_leave_to_the_cpu(files):
    for target, words in (("npu", "An NPU leaves"), ("edgetpu", "The Edge TPU leaves"), ("cpu", "")):
        (*warnings,) = advice.warnings_of("int8", files["uint8"].census, target, 1.0)
        assert len(warnings) == bool(words)
        if words:
            assert warnings[0].startswith(words)
            assert warnings[0].endswith("to the CPU: 2 DEQUANTIZE, 1 QUANTIZE, 1 SOFTMAX.")
    (warning,) = advice.warnings_of("int8", files["int8"].census, "edgetpu", 1.0)
    assert "MediaPipe reads uint8" in warning
    assert advice.warnings_of("float32", files["float32"].census, "cpu", 1.26) == [
        "On this processor it takes 1.3 times as long as float32."
    ]


def test_int4_without_dense_layers_says_so(contents):
    inputs = keras.Input((8, 8, 3), name="image")
    maps = keras.layers.Conv2D(4, 3)(inputs)
    outputs = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(maps))
    networks = {
        False: keras.Model(inputs, outputs),
        True: keras.Model(inputs, keras.layers.Dense(40)(outputs)),
    }
    for dense, network in networks.items():
        census = census_of(quantize.four_bits(convert(network, "float32")))
        said = advice.warnings_of("int4", census, "gpu", 1.0)
        assert [*said] == (
            [] if dense else ["It has no dense layer: only these get int4 weights, others int8 ones."]
        )


def test_what_a_file_was_worth(files):
    equal = advice.advice(files["uint8"], [*files.values()], 400, "cpu", 200)
    assert "25 % of the float32 file's bytes and takes 100 % of its time" in equal
    assert "its top-1 on 200 images equals the Keras model's" in equal
    assert not {"smallest", "fastest"} & {*equal.replace(";", " ").split()}
    slow = dataclasses.replace(files["uint8"], size=99, latency_ms={1: 3.0})
    others = [slow, files["float32"], files["int8"]]
    assert "takes 150 % of its time (one thread of this processor), the smallest of these files" in (
        advice.advice(slow, others, 400, "cpu", 200)
    )
    fast = dataclasses.replace(
        slow, latency_ms={1: 1.0}, accuracy=dataclasses.replace(slow.accuracy, drop=0.02)
    )
    said = advice.advice(fast, [fast, *others[1:]], 400, "cpu", 200)
    assert "the smallest and fastest of these files" in said
    assert "2.00 points lower" in said
    unlabeled = dataclasses.replace(fast, accuracy=None)
    assert "first class for 97.5 % of 200 images" in advice.advice(unlabeled, [unlabeled], 400, "cpu", 200)
    assert "own compiler says" in advice.advice(files["int8"], [], 400, "edgetpu", 200)
    assert "own compiler says" not in advice.advice(files["uint8"], [], 400, "edgetpu", 200)
    assert "The GPU: compatible" in advice.advice(files["float32"], [], 400, "gpu", 200)


def test_pixels_become_int8_as_the_file_says(contents, files):
    content, image = contents["int8"], images(1, seed=3)
    text = metadata.read(flatbuffer.read(content), content)["image"]
    assert text.startswith("Pixels in [0, 255] less 128, as int8.")
    assert text.endswith("The file itself normalises them: (pixel - 127.5) / 127.5.")
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    integers = (image - 128).astype(np.int8)
    interpreter.set_tensor(given["index"], integers)
    interpreter.invoke()
    scale, zero_point = found["quantization"]
    probabilities = (interpreter.get_tensor(found["index"]) - np.float32(zero_point)) * np.float32(scale)
    np.testing.assert_array_equal(probabilities, runner.predict(content, image))
    scale, zero_point = given["quantization"]
    words = f"scale {scale:g} and zero point {zero_point} they stand for pixel - {zero_point + 128}."
    assert words in text
    np.testing.assert_array_equal(scale * (integers - np.float32(zero_point)), image - (zero_point + 128))


def test_a_normalisation_in_words():
    assert str(Preprocess((0, 0, 0), (255, 255, 255))) == "(pixel - 0) / 255"
    assert str(Preprocess((123.675, 116.28, 103.53), (1, 1, 1))) == "(pixel - (123.675, 116.28, 103.53)) / 1"
