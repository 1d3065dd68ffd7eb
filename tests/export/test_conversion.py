"""Networks as files: their ends, their operators, their answers."""

import dataclasses
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from helpers import DISTINCT, mostly_slow, randomized, tiny, tiny_segmenter
from tflite import REWRITTEN, changed, images, int8, io_details, operators

import kvision
from kvision.errors import UserError
from kvision.tasks import MultiLabel, Segmentation
from kvision_export.activations import Sigmoid
from kvision_export.answers import end_in
from kvision_export.choices import ANSWERS, IO_DTYPES
from kvision_export.convert import FLOATS, PEER, convert, convert_apart
from kvision_export.exporter import export
from kvision_export.faults import find_faults
from kvision_export.flatbuffer import read, write
from kvision_export.int8 import Int8Files
from kvision_export.modes import MODES
from kvision_export.quantize import four_bits, quantize
from kvision_export.ranges import Ranges
from kvision_export.runner import predict
from kvision_export.verify import POSITIONS, answers, collect, fidelity
from kvision_export.versions import set_versions

FOLDED = ["GATHER"] if tf.__version__ >= "2.21" else []  # of constants, the biases of Swin V2
LIKE_OTHERS = {  # made of the same blocks as another network or another test's, or slow to convert
    "alexnet", "alexnet_owt", "convnext_atto", "convnext_v2_atto", "deit_base", "deit_base_distilled",
    "densenet121", "efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_b0", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "googlenet_bn", "inception_v3", "mobilenet_v1",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_large_minimal", "mobilenet_v3_small",
    "mobilenet_v3_small_minimal", "mobilenet_v4_conv_large", "mobilenet_v4_conv_medium",
    "mobilenet_v4_conv_small", "mobilenet_v4_hybrid_medium", "resnet101", "resnet18", "resnext101_32x4d",
    "swin_base", "swin_v2_base", "vgg11_bn", "vgg_f", "vgg_m", "vgg_s", "vit_base_patch16",
    "vit_base_patch32", "vit_base_r50_s16", "vit_huge_patch14", "vit_small_r26_s32", "xception",
}  # fmt: skip

TRANSFORMERS = (
    "vit",
    "vit_hybrid",
    "deit",
    "swin",
)  # Int8 has one scale for all channels of what their blocks add up
MOBILE = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenet_v4", "efficientnet", "efficientnet_v2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name for name in DISTINCT]
)
def test_files_agree_with_keras(name):
    model = randomized(tiny(name, classifier_activation=None))
    _, size, _, channels = model.input_shape
    pixels = images(count=4, size=size, channels=channels)
    expected = model.predict(pixels, verbose=0)
    modes = {"float32": 1e-4, "int8": 0.2}  # the share by which logits may be off
    if kvision.info(name).family in TRANSFORMERS:
        modes = {"float32": 1e-4, "float16": 0.01, "dynamic": 0.2}
    files = {mode: convert(model, mode) for mode in modes if mode != "int8"}
    for mode, tolerance in modes.items():
        content = files[mode] if mode in files else int8(files["float32"], pixels)
        assert not find_faults(read(content))
        found = operators(content)
        assert not set(found) & {"SHAPE", "PACK", *FOLDED}
        assert found.count("GELU") == sum(
            isinstance(layer, kvision.layers.MLP)
            or getattr(layer, "activation", None) is keras.activations.gelu
            for layer in model.layers
        )
        image, probabilities, signatures = io_details(content)
        assert image["dtype"] == (np.uint8 if mode == "int8" else np.float32)
        assert tuple(image["shape"]) == (1, size, size, channels)
        assert probabilities["dtype"] == np.float32
        assert signatures == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}
        error = np.linalg.norm(predict(content, pixels) - expected) / np.linalg.norm(expected)
        assert error < tolerance


@pytest.mark.slow
def test_smaller_files_agree_too():
    model = randomized(tiny("resnet18", filters=32))
    floats = convert(model)
    size = len(floats)
    files = {mode: convert(model, mode) for mode in ("float16", "dynamic")}
    files["int4"] = four_bits(floats)
    for mode, share in (("float16", 0.55), ("dynamic", 0.4), ("int4", 0.4)):
        assert len(files[mode]) < share * size
        np.testing.assert_allclose(
            predict(files[mode], images()), model.predict(images(), verbose=0), atol=0.05
        )


def segmenter(name):
    """One that tells pixels apart, from pixels to probabilities."""
    model = randomized(tiny_segmenter(name))
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.name == "kernel" and not np.any(weight):  # the classifiers of FCNs
            weight.assign(random.normal(0, 0.3, weight.shape))
    return Segmentation.serving(model)


@pytest.mark.parametrize(
    "name",
    mostly_slow(
        ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn8s", "fcn_resnet50"], "fcn8s"
    ),
)
def test_segmenters_in_every_mode_and_with_every_end(name):
    model, pixels = segmenter(name), images(4)
    files = convert_apart(model, FLOATS)
    floats = files["float32"]
    files["int8"] = Int8Files(floats, pixels).make(REWRITTEN)
    files["int16x8"] = write(quantize(floats, Ranges(floats, pixels).find("minmax"), bits=16))
    files["int4"] = four_bits(floats)
    expected = collect(model.predict(pixels, verbose=0))
    assert expected.probabilities.shape == (4, POSITIONS, 3)
    assert len(np.unique(expected.classes)) > 1
    least = {"float32": 80, "float16": 35, "int16x8": 20, "dynamic": 15, "int8": 12, "int4": 10}  # dB
    assert {*files} == {*least} == {*MODES}
    for mode, content in files.items():
        whole = name == "fcn8s" or mode == "int8"  # the ends of other files are written by the same code
        for answer in ANSWERS if whole else ("logits", "mask"):
            ended, _ = changed(changed(content, end_in, answer)[0], set_versions)
            assert not find_faults(read(ended))
            _, output, signatures = io_details(ended)
            assert signatures["serving_default"]["outputs"] == [answer]
            assert output["dtype"] == (np.uint8 if answer == "mask" else np.float32)
            assert tuple(output["shape"]) == (1, 64, 64, 3)[: 3 if answer == "mask" else 4]
            found = answers(ended, pixels)
            assert fidelity(found, expected).sqnr > least[mode], (mode, answer)
            if answer == "logits":
                np.testing.assert_array_equal(predict(ended, pixels).argmax(-1), found.classes)
                logits = found
        np.testing.assert_array_equal(found.classes, logits.classes)  # of the mask
        np.testing.assert_array_equal(found.logits, logits.logits)


@pytest.mark.slow
def test_sigmoids_in_every_mode_and_with_every_end():
    logits, pixels = tiny("lenet5", classifier_activation=None), images(8, channels=1)
    classifier = logits.get_layer("classifier")
    classifier.kernel.assign(20 * classifier.kernel)
    classifier.bias.assign(-logits.predict(pixels, verbose=0).mean(0))
    model = MultiLabel.serving(logits)
    files = convert_apart(model, FLOATS)
    floats = files["float32"]
    for name, dtype in (("int8", "uint8"), ("int8 throughout", "int8")):
        files[name] = Int8Files(floats, pixels, io_dtype=dtype).make(REWRITTEN)
    files["int16x8"] = write(quantize(floats, Ranges(floats, pixels).find("minmax"), bits=16))
    files["int4"] = four_bits(floats)
    expected = collect(model.predict(pixels, verbose=0), activation=Sigmoid)
    np.testing.assert_allclose(expected.logits, logits.predict(pixels, verbose=0), rtol=1e-3, atol=1e-3)
    assert len(np.unique(expected.classes, axis=0)) > 1
    least = {
        "float32": 80,
        "float16": 35,
        "int16x8": 20,
        "dynamic": 15,
        "int8": 12,
        "int8 throughout": 12,
        "int4": 3,
    }
    assert {*MODES} <= {*files}
    for mode, content in files.items():
        for answer in ("probabilities", "logits"):
            ended, _ = changed(changed(content, end_in, answer)[0], set_versions)
            assert not find_faults(read(ended))
            assert ("LOGISTIC" in operators(ended)) == (answer == "probabilities")
            found = answers(ended, pixels, activation=Sigmoid)
            near = fidelity(found, expected, Sigmoid)
            assert near.sqnr > least[mode], (mode, answer)
            assert near.largest_difference < (1e-4 if mode == "float32" else 0.2)
            assert found.classes.shape == (8, 3)


@pytest.mark.slow
def test_a_segmenter_of_integers_throughout():
    content = int8(segmenter("lraspp_mobilenet_v3_large"), images(), io_dtype="int8")
    for answer, dtype in (("probabilities", np.int8), ("logits", np.int8), ("mask", np.uint8)):
        ended, _ = changed(content, end_in, answer)
        assert [end["dtype"] for end in io_details(ended)[:2]] == [np.int8, dtype]
        assert not {"QUANTIZE", "DEQUANTIZE"} & {*operators(ended)}


def named_outputs(content, image):
    """Outputs of a file's signature for an image, by name, as real values."""
    run = Interpreter(model_content=content).get_signature_runner()
    dtype = run.get_input_details()["image"]["dtype"]
    outputs = run(image=(image - 128 * (dtype == np.int8)).astype(dtype))
    details = {name: run.get_output_details()[name]["quantization"] for name in outputs}
    return {
        name: (output.astype(np.float32) - details[name][1]) * (details[name][0] or 1)
        for name, output in outputs.items()
    }


def test_several_outputs_keep_their_names_in_every_mode():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs / 255)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = {"scores": keras.layers.Dense(5, "softmax")(x), "boxes": keras.layers.Dense(4)(x)}
    model, pixels = keras.Model(inputs, outputs, name="detector"), images(size=16)
    files = convert_apart(model, [*FLOATS, PEER], pixels)
    floats = files["float32"]
    for dtype in IO_DTYPES:
        files[f"int8 {dtype}"] = Int8Files(floats, pixels, io_dtype=dtype).make(REWRITTEN)
    files["int16x8"] = write(quantize(floats, Ranges(floats, pixels).find("minmax"), bits=16))
    files["int4"] = four_bits(floats)
    expected = model.predict(pixels[:1], verbose=0)
    for name, content in files.items():
        versioned, _ = changed(content, set_versions)
        assert not find_faults(read(versioned))
        found = named_outputs(versioned, pixels[:1])
        assert found.keys() == {"scores", "boxes"}, name
        for output, values in found.items():
            np.testing.assert_allclose(
                values, expected[output], atol=0.1 if name == "int4" else 0.02, err_msg=name
            )


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_file(monkeypatch):
    monkeypatch.setattr("kvision_export.convert.subprocess", subprocess)  # a new interpreter
    model = randomized(tiny("lenet5"))
    apart = convert_apart(model, ["float32", PEER], images(channels=1))
    np.testing.assert_array_equal(
        predict(apart["float32"], images(channels=1)),
        predict(convert(model), images(channels=1)),
    )
    assert io_details(apart[PEER])[0]["dtype"] == np.uint8


class Counting(keras.layers.Layer):
    """Adds how often it was called."""

    def build(self, _):
        self.calls = self.add_weight(initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign(self.calls + 1)
        return x + self.calls


def test_a_network_with_a_state_is_refused(tmp_path):
    inputs = keras.Input((4, 4, 3), batch_size=1)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Counting()(inputs)))
    with pytest.raises(UserError, match="changes its own variables when it is called. The answer of"):
        convert(model)
    x = keras.layers.LSTM(2, stateful=True, name="memory")(keras.layers.Reshape((4, 12))(inputs))
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    with pytest.raises(UserError, match="memory keeps a state from one batch to the next. The answer of"):
        export(model, tmp_path / "out", images=images(3, 4), modes=["float32"])
    assert not list(tmp_path.iterdir())


def test_what_needs_other_than_built_in_operators_is_refused():
    inputs = keras.Input((3, 3, 1))
    outputs = keras.layers.Lambda(lambda x: tf.linalg.det(x[..., 0])[:, None])(inputs)
    with pytest.raises(ValueError, match="cannot be converted"):
        convert_apart(keras.Model(inputs, outputs, name="determinant"), ["float32"])
    with pytest.raises(ValueError, match="no fixed input size"):
        convert(keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]))


def test_operators_have_the_versions_that_their_types_need():
    content, _ = changed(int8(randomized(tiny("mobilenet_v1")), images()), set_versions)
    model = read(content)
    versions = {
        name: model.operatorCodes[operator.opcodeIndex].version
        for name, operator in zip(operators(content), model.subgraphs[0].operators, strict=True)
    }
    assert {versions[name] for name in ("CONV_2D", "DEPTHWISE_CONV_2D")} == {3}
    assert (versions["FULLY_CONNECTED"], versions["MEAN"], versions["SOFTMAX"]) == (4, 2, 1)
    assert changed(content, set_versions)[0] == content


OTHERS = [name for name in DISTINCT if kvision.info(name).family not in (*MOBILE, *TRANSFORMERS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_float16_of_the_others(name):
    model = randomized(tiny(name, classifier_activation=None))
    pixels = images(4, *model.input_shape[2:])
    expected = model.predict(pixels, verbose=0)
    content = convert(model, "float16")
    assert not find_faults(read(content))
    error = np.linalg.norm(predict(content, pixels) - expected) / np.linalg.norm(expected)
    assert error < 0.01


MOBILES = [name for name in kvision.list_models() if kvision.info(name).family in MOBILE]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MOBILES if name in DISTINCT])
def test_every_mode_of_a_mobile_network(name, tmp_path):
    model = randomized(tiny(name))
    _, size, _, channels = model.input_shape
    pixels, calibration = images(6, size, channels), images(8, size, channels, seed=1)
    report = export(
        model, tmp_path / "out", images=pixels, calibration=calibration, modes=MODES, compare=False,
    )  # fmt: skip
    least = {"float32": 80, "float16": 35, "int16x8": 20, "dynamic": 10, "int8": 12, "int4": 5}  # dB
    for file in report["files"]:
        assert file["fidelity"]["sqnr"] > least[file["mode"]], file["mode"]
        assert file["census"]["faults"] == []
    expected = predict(int8(model, calibration), pixels)
    for dtype, difference in (("float32", 1e-6), ("int8", 1 / 255)):  # of probabilities in steps of 1 / 256
        content = int8(model, calibration, io_dtype=dtype)
        np.testing.assert_allclose(predict(content, pixels), expected, atol=difference)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MOBILES if name not in DISTINCT])
def test_every_mode_of_a_wider_and_deeper_mobile_network(name):
    """Whole, but for the size of its images."""
    pixels = images(4)
    model = randomized(kvision.create_model(name, input_shape=pixels.shape[1:]))
    files = convert_apart(model, FLOATS)
    floats = files["float32"]
    files["int8"] = Int8Files(floats, pixels).make(dataclasses.replace(REWRITTEN, bias_corrected=True))
    files["int16x8"] = write(quantize(floats, Ranges(floats, pixels).find("minmax"), bits=16))
    files["int4"] = four_bits(floats)
    assert {*files} == {*MODES}
    expected = answers(floats, pixels)
    np.testing.assert_allclose(expected.probabilities, model.predict(pixels, verbose=0), atol=1e-4)
    least = {"float32": 80, "float16": 35, "int16x8": 20, "dynamic": 15, "int8": 15, "int4": 10}  # dB
    for mode, content in files.items():
        assert not find_faults(read(content))
        assert fidelity(answers(content, pixels), expected).sqnr > least[mode], mode
