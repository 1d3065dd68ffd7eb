"""Exported files: their ends, their arithmetic, their report, their errors."""

import json

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from helpers import DISTINCT, TINY, command, randomized, tiny

import kvision
from kvision_export import flatbuffer
from kvision_export.convert import convert, split_preprocess
from kvision_export.quantize import convert_int8
from kvision_export.verify import Tolerance, latency, predict


def images(count=8, size=64):
    """Smooth ones, as photographs are."""
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (count, 4, 4, 3)).astype("float32")
    return np.asarray(keras.ops.image.resize(coarse, (size, size)))


def operators(content):
    model = flatbuffer.read(content)
    return [flatbuffer.operator_name(model, operator) for operator in model.subgraphs[0].operators]


def ends(path):
    interpreter = Interpreter(model_path=str(path))
    return (
        interpreter.get_input_details()[0],
        interpreter.get_output_details()[0],
        interpreter.get_signature_list(),
    )


LIKE_OTHERS = {  # made of the same blocks as another network or another test's, or slow to convert
    "alexnet_owt", "convnext_atto", "deit_base", "deit_base_distilled", "densenet121", "efficientnet_b0",
    "efficientnet_v2_b0", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet",
    "googlenet_bn", "inception_v3", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_large_minimal", "mobilenet_v3_small_minimal", "mobilenet_v4_conv_large",
    "mobilenet_v4_conv_medium", "mobilenet_v4_conv_small", "mobilenet_v4_hybrid_medium", "resnet18",
    "resnet101", "vgg_m", "vgg_s", "vgg11_bn", "vit_base_patch16", "vit_base_patch32",
    "vit_huge_patch14", "xception",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name for name in DISTINCT]
)
def test_files_agree_with_keras(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = randomized(tiny(name, classifier_activation=None))
    _, size, _, channels = model.input_shape
    pixels = np.rint(images(count=4, size=size))[..., :channels]
    expected = model.predict(pixels, verbose=0)
    modes = {"float32": 1e-4, "int8": 0.2}  # the share by which logits may be off
    if kvision.info(name).family in ("vit", "deit", "swin"):  # int8 is too coarse for narrow transformers
        modes = {"float32": 1e-4, "float16": 0.01, "dynamic": 0.2}
    for mode, tolerance in modes.items():
        content = convert_int8(model, pixels) if mode == "int8" else convert(model, mode)
        path = tmp_path / f"{mode}.tflite"
        path.write_bytes(content)
        found = operators(content)
        assert not set(found) & {"SHAPE", "PACK", "GATHER", "VAR_HANDLE", "CUSTOM"}
        assert found.count("GELU") == sum(
            isinstance(layer, kvision.layers.MLP)
            or getattr(layer, "activation", None) is keras.activations.gelu
            for layer in model.layers
        )
        image, probabilities, signatures = ends(path)
        assert image["dtype"] == (np.uint8 if mode == "int8" else np.float32)
        assert tuple(image["shape"]) == (1, size, size, channels)
        assert probabilities["dtype"] == np.float32
        assert signatures == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}
        error = np.linalg.norm(predict(path, pixels) - expected) / np.linalg.norm(expected)
        assert error < tolerance


def test_smaller_files_agree_too(tmp_path):
    model = randomized(tiny("resnet18", filters=32))
    size = len(convert(model))
    for mode, share in (("float16", 0.55), ("dynamic", 0.4)):
        path = tmp_path / f"{mode}.tflite"
        path.write_bytes(convert(model, mode))
        assert path.stat().st_size < share * size
        np.testing.assert_allclose(predict(path, images()), model.predict(images(), verbose=0), atol=0.05)


@pytest.mark.parametrize(
    ("mean", "std", "padding"),
    [(127.0, 128.0, "same"), (127.5, 127.5, "same"), (127.5, 127.5, "symmetric"), (0.0, 255.0, "symmetric")],
)
def test_int8_normalises_by_its_input_scale(mean, std, padding, tmp_path):
    """Also where the mean is no integer: the half level is in the stem's bias."""
    preprocess = kvision.Preprocess((mean,) * 3, (std,) * 3)
    model = randomized(
        tiny("efficientnet_lite0", preprocess=preprocess, padding=padding, width_multiplier=0.5)
    )
    path = tmp_path / "m.tflite"
    path.write_bytes(convert_int8(model, images()))
    image, probabilities, _ = ends(path)
    assert image["dtype"] == np.uint8
    assert image["quantization"] == (pytest.approx(1 / std), int(mean))
    assert probabilities["dtype"] == np.float32
    names = operators(path.read_bytes())
    assert names[0] == "QUANTIZE"
    assert not {"MUL", "SUB", "DIV"} & set(names)
    assert names.count("ADD") == sum(isinstance(layer, keras.layers.Add) for layer in model.layers)
    pixels = np.rint(images())
    error = np.abs(predict(path, pixels) - model.predict(pixels, verbose=0))
    assert error.mean() < 0.05  # int8 with random weights
    assert error.max() < 0.2


def test_the_half_level_counts(tmp_path):
    """A network that only sums its normalised pixels shows an offset that others would hide."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(inputs)
    x = keras.layers.Conv2D(2, 8, kernel_initializer=keras.initializers.Constant(1 / 192))(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    model.layers[2].bias.assign([0.0, 0.5])
    calibration = [np.full((8, 8, 3), level, "float32") for level in (0, 255)]
    path = tmp_path / "m.tflite"
    path.write_bytes(convert_int8(model, calibration))
    levels = np.arange(0, 256, 15)
    pixels = np.stack([np.full((8, 8, 3), level, "float32") for level in levels])
    error = predict(path, pixels) - model.predict(pixels, verbose=0)
    step = 2.5 / 255
    assert abs(error).max() < 0.75 * step
    assert abs(error.mean()) < 0.15 * step  # half a level would be 0.5 / 127.5 = 0.4 steps


def test_a_layer_that_is_dead_on_all_images_does_not_spoil_the_file(tmp_path):
    model = kvision.models.lenet5()
    model.get_layer("c1.conv").set_weights([np.zeros((5, 5, 1, 6)), np.zeros(6)])
    path = tmp_path / "m.tflite"
    path.write_bytes(convert_int8(model, images(size=32)[..., :1]))
    expected = model.predict(images(size=32)[..., :1], verbose=0)
    np.testing.assert_allclose(predict(path, images(size=32)[..., :1]), expected, atol=0.02)


def test_other_constants_stay_in_the_graph(tmp_path):
    model = randomized(tiny("efficientnet_b0"))
    assert split_preprocess(model) is None
    path = tmp_path / "m.tflite"
    path.write_bytes(convert_int8(model, images()))
    image, _, _ = ends(path)
    assert (image["dtype"], image["quantization"]) == (np.uint8, (1.0, 0))
    pixels = np.rint(images())
    np.testing.assert_allclose(predict(path, pixels), model.predict(pixels, verbose=0), atol=0.1)


def test_latency_is_a_time(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(convert(tiny("lenet5")))
    assert 0 < latency(path, images()[0][..., :1], threads=1) < 1000


@pytest.mark.parametrize(
    ("tolerance", "measured", "accepted"),
    [
        (Tolerance(difference=1e-4), (1e-5, 0.9, 0.1), True),
        (Tolerance(difference=1e-4), (1e-3, 1.0, 0.0), False),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.96, 0.004), True),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.98, 0.1), True),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.96, 0.006), False),
        (Tolerance(agreement=0.97), (float("nan"), 1.0, 0.0), False),
    ],
)
def test_tolerances(tolerance, measured, accepted):
    assert tolerance.accepts(*measured) is accepted


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a network that tells digits apart."""
    output = tmp_path_factory.mktemp("runs") / "run"
    command("kvision-train", *TINY, "--data=digits", "--epochs=8", f"--output={output}")
    return output


def test_the_command_writes_files_and_a_report(run):
    arguments = ["kvision-export", f"--model={run}", "--quantize=float32,float16,dynamic,int8", "--images=50",
                 "--calibration_images=20", "--max_drop=5"]  # fmt: skip
    printed = command(*arguments)
    output = run / "export"
    modes = ["float32", "float16", "dynamic", "int8"]
    assert {path.name for path in output.iterdir()} == {
        "labels.txt", "report.json", *(f"mobilenet_v1_{mode}.tflite" for mode in modes),
    }  # fmt: skip
    assert (output / "labels.txt").read_text() == (run / "labels.txt").read_text()
    report = json.loads((output / "report.json").read_text())
    assert [row["mode"] for row in report["files"]] == modes
    for row in report["files"]:
        assert row["size"] == (output / row["file"]).stat().st_size
        assert row["latency_ms"].keys() == {"1", "2"}
        assert row["accepted"]
        assert f"{100 * row['top1']:.1f}" in printed
    assert report["files"][0]["largest_difference"] < 1e-4
    assert report["keras_top1"] > 0.8
    command(*arguments, "--quantize=float32")  # an earlier export is replaced
    assert not (output / "mobilenet_v1_int8.tflite").exists()


def test_a_file_outside_its_tolerance_is_exit_code_1(run, tmp_path):
    printed = command("kvision-export", f"--model={run}", "--quantize=float32,float16", "--max_difference=0",
                      "--images=20", f"--output={tmp_path / 'out'}", code=1)  # fmt: skip
    assert "float32.tflite is outside its tolerance. Use mobilenet_v1_float16.tflite." in printed
    assert (tmp_path / "out" / "report.json").exists()


def test_errors(run, tmp_path):
    for arguments, words in (
        ([f"--model={run}", "--quantize=int4"], "float32, float16, dynamic, int8"),
        (["--model=mobilenet_v1", f"--output={tmp_path / 'a'}"], "A dataset is needed"),
        (["--model=mobilenet_v1", "--calibration=digits", f"--output={tmp_path / 'a'}"], "10 classes"),
        (["--model=mobilenet_v9", "--calibration=digits"], "Did you mean"),
        ([f"--model={run}", "--output=/dev/null/x"], "/dev/null"),
        ([f"--model={run}", f"--output={run}"], "neither empty nor an earlier export"),
    ):
        assert words in command("kvision-export", *arguments, code=2)
    assert not list(tmp_path.iterdir())
    assert (run / "model.keras").exists()
