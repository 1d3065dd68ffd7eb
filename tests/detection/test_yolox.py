"""YOLOX: its names, sizes and raw outputs are the authors' code's."""

import inspect
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from golden import formula_image, formula_weights
from helpers import TINY_YOLOX, built_without_memory, mostly_slow, tiny_yolox
from tflite import images, operators

import kvision
from kvision import detection
from kvision.errors import UserError
from kvision_export.convert import convert

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "yolox.json").read_text())
OUTPUTS = np.load(REFERENCE / "yolox.npz")
PUBLISHED = {  # trainable parameters of the authors' networks
    "yolox_nano": 912_159,
    "yolox_tiny": 5_055_855,
    "yolox_s": 8_968_255,
    "yolox_m": 25_326_495,
    "yolox_l": 54_208_895,
    "yolox_x": 99_071_455,
}
BOTH = mostly_slow(["yolox_nano", "yolox_s"], "yolox_nano")  # with depthwise convolutions or without
PIXELS = images(count=2)


def trained(name, **keywords):
    """A small form with the formula's weights; its raw outputs are small, and its scores are not."""
    model = tiny_yolox(name, **keywords)
    weights = formula_weights({k: v.shape for k, v in kvision.weights.state_dict(model).items()}, 1.2)
    scaled = {key: value * np.float32(0.05 if "_preds." in key else 1) for key, value in weights.items()}
    kvision.weights.load(model, scaled)
    return model


@pytest.fixture(scope="module", params=BOTH)
def small(request):
    """A small network, not to be changed, and its name."""
    return request.param, trained(request.param)


def test_a_name_is_a_builder_and_a_network_of_the_task():
    names = kvision.list_models(task="detection")
    functions = {name for name, value in vars(detection).items() if inspect.isfunction(value)}
    others = {
        "assigned",
        "fit_stages",
        "last_stages",
        "raw",
        "selective_search",
        "with_losses",
        "yolox_losses",
    }
    assert functions == {*names, *others}
    for name in names:
        builder, row = getattr(detection, name), type(kvision.info(name).variant)
        assert (builder.__module__, builder.__name__) == ("kvision.detection", name)
        assert f"see `kvision.detection.{row.__name__}`" in builder.__doc__
        assert getattr(detection, row.__name__) is row
        assert f"{name}: {kvision.info(name).variant.params:,} trainable" in builder.__doc__
        shown = inspect.signature(builder).parameters
        with pytest.raises(TypeError, match=f"Valid names: {', '.join(shown)}\\.$"):
            builder(classifier_activation="sigmoid")


@pytest.mark.parametrize("name", mostly_slow(PUBLISHED, "yolox_nano"))
def test_parameters(name):
    variant = kvision.info(name).variant
    model = built_without_memory(name)
    assert model.input_shape == (None, variant.input_size, variant.input_size, 3)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == variant.params == PUBLISHED[name]
    assert {key: value.shape for key, value in model.output.items()} == {
        "boxes": (None, 100, 4), "scores": (None, 100), "classes": (None, 100), "count": (None,),
    }  # fmt: skip
    (row,) = kvision.list_weights(name)
    assert row.source.endswith(f"/0.1.1rc0/{name}.pth")
    assert (row.input_size, row.num_classes, row.ap > 25) == (variant.input_size, 80, True)


@pytest.mark.parametrize("name", mostly_slow(ENTRIES, "yolox_nano"))
def test_raw_outputs_are_the_authors(name):
    """Their network takes BGR, so the formula's image is turned around for ours."""
    entry = ENTRIES[name]
    model = kvision.create_model(name, input_shape=entry["input"])
    shapes = {key: value.shape for key, value in kvision.weights.state_dict(model).items()}
    assert sorted(shapes) == entry["names"]
    state = {"model": formula_weights(shapes, entry["gain"]), "start_epoch": 300, "optimizer": {"state": {}}}
    kvision.weights.load(model, state)
    height, width = entry["input"][:2]
    pixels = formula_image(height, width)[None, ..., ::-1].astype("float32")
    outputs = detection.raw(model)(pixels, training=False)
    assert [*outputs] == ["boxes", "classes", "objectness"]
    sizes = [(height // stride, width // stride) for stride in (8, 16, 32)]
    ends = np.cumsum([rows * columns for rows, columns in sizes])[:-1]
    kept = {"classes": ("cls", 4), "boxes": ("reg", 1), "objectness": ("obj", 1)}
    for key, (short, step) in kept.items():
        for i, part in enumerate(np.split(outputs[key][0], ends)):
            found = part.reshape(*sizes[i], -1)[..., ::step]
            expected = OUTPUTS[f"{name}.{short}{i}"].transpose(1, 2, 0)
            assert np.linalg.norm(found - expected) < 2e-5 * np.linalg.norm(expected)


@pytest.mark.slow
def test_detections_are_the_decoded_raw_outputs():
    """Boxes by the paper's section 2.1, cell by cell, where no box suppresses another."""
    shape = (64, 96, 3)
    model = trained("yolox_s", input_shape=shape, iou_threshold=1.0, score_threshold=0.0)
    pixels = images(1, 96)[:, :64]
    raw = {key: np.asarray(value[0], "float64") for key, value in detection.raw(model)(pixels).items()}
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(64 // s) for x in range(96 // s)]
    assert len(cells) == len(raw["boxes"])
    rows = []
    for (x, y, s), (dx, dy, w, h), objectness, classes in zip(
        cells, raw["boxes"], raw["objectness"], raw["classes"], strict=True
    ):
        cx, cy, w, h = (x + dx) * s, (y + dy) * s, np.exp(w) * s, np.exp(h) * s
        score = 1 / (1 + np.exp(-classes.max())) / (1 + np.exp(-objectness))
        rows.append((score, classes.argmax(), cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    rows = np.array(sorted(rows, reverse=True)[:100])
    outputs = {key: np.asarray(value[0]) for key, value in model(pixels).items()}
    assert outputs["count"] == 100
    np.testing.assert_allclose(outputs["scores"], rows[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(outputs["classes"], rows[:, 1])
    np.testing.assert_allclose(outputs["boxes"], rows[:, 2:], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_any_size_saving_and_other_precision(small, tmp_path):
    name, model = small
    detections = model(PIXELS)
    assert np.min(detections["count"]) > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in again(PIXELS).items():
        np.testing.assert_array_equal(value, detections[key])
    boxes = detection.raw(again)(PIXELS)["boxes"]
    dynamic = tiny_yolox(name, input_shape=(None, None, 3), weights=kvision.weights.state_dict(model))
    np.testing.assert_allclose(detection.raw(dynamic)(PIXELS)["boxes"], boxes, rtol=1e-4, atol=1e-4)
    assert dynamic(PIXELS[:, :32])["boxes"].shape == (2, 100, 4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = built_without_memory(name, **TINY_YOLOX)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {key: value.dtype for key, value in mixed.output.items()} == {
        "boxes": "float32", "scores": "float32", "classes": "int32", "count": "int32",
    }  # fmt: skip


@pytest.mark.slow
def test_every_weight_has_a_gradient(small):
    model = detection.raw(small[1])
    weights = model.get_weights()
    with tf.GradientTape() as tape:
        loss = sum(keras.ops.mean(keras.ops.square(y)) for y in model(PIXELS, training=True).values())
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.isfinite(gradient.numpy()).all(), variable.path
        assert gradient.numpy().any(), variable.path
    model.set_weights(weights)  # of which batch norms changed theirs


@pytest.mark.slow
def test_files_have_built_in_operators_and_agree(small):
    _, model = small
    content = convert(model)
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    outputs = Interpreter(model_content=content).get_signature_runner()(image=PIXELS[:1])
    expected = model(PIXELS[:1])
    for key in ("classes", "count"):
        np.testing.assert_array_equal(outputs[key], expected[key])
    for key in ("boxes", "scores"):
        np.testing.assert_allclose(outputs[key], expected[key], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_weights_fit_other_classes(small, caplog):
    name, source = small
    weights = kvision.weights.state_dict(source)
    model = tiny_yolox(name, num_classes=5, weights=weights)
    for key, value in kvision.weights.state_dict(model).items():
        assert key.startswith("head.cls_preds") or np.array_equal(value, weights[key]), key
    assert "keeps its fresh weights" in caplog.text
    assert detection.raw(model).output["classes"].shape == (None, 84, 5)
    same = tiny_yolox(name, num_classes=None, weights=weights)
    assert detection.raw(same).output["classes"].shape[-1] == 3
    bare = tiny_yolox(name, weights=weights, include_top=False)
    assert bare.output_shape == (None, 2, 2, 128)
    assert [*kvision.features(model, ("c3", "c5")).output] == ["c3", "c5"]


def test_what_does_not_fit():
    with pytest.raises(UserError, match=r"multiples of 32; got \(64, 100\), to which \(64, 96\) is nearest"):
        detection.yolox_nano(input_shape=(64, 100, 3))
    with pytest.raises(UserError, match="must have 3 channels, or 1 for grey images; got 4"):
        detection.yolox_nano(input_shape=(64, 64, 4))
    with pytest.raises(UserError, match="`score_threshold` must be a number from 0 to 1; got 30"):
        detection.yolox_nano(score_threshold=30)
    with pytest.raises(UserError, match="lenet5 has no layer 'decode'"):
        detection.raw(kvision.models.lenet5())
