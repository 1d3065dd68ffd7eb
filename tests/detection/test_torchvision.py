"""The detectors that torchvision has too."""

import json
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from golden import formula_image, formula_weights
from helpers import NARROW, SMALL, built_without_memory, mostly_slow, randomized, small_columns
from tflite import images, operators

import kvision
from kvision import detection
from kvision.errors import UserError
from kvision_export.convert import convert

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "detectors.json").read_text())
THEIRS = np.load(REFERENCE / "detectors.npz")
SSD, RCNN = ENTRIES
PUBLISHED = {  # torchvision's num_params; all values of the file, with the statistics of batch norms
    "fasterrcnn_resnet50_fpn": (41_755_286, 41_861_526),
    "fasterrcnn_resnet50_fpn_v2": (43_712_278, 43_771_542),
    "fasterrcnn_mobilenet_v3_large_fpn": (19_386_354, 19_435_154),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (19_386_354, 19_435_154),
    "ssdlite320_mobilenet_v3_large": (3_440_060, 3_473_004),
}
FEW = {"pyramid_filters": 8, "hidden_filters": 16, "proposals": 20, "proposal_candidates": 30}
TINY = {  # one of each architecture: columns of its small form
    "fasterrcnn_resnet50_fpn": SMALL["resnet"] | FEW,
    "fasterrcnn_resnet50_fpn_v2": SMALL["resnet"] | FEW,
    "fasterrcnn_mobilenet_v3_large_320_fpn": NARROW | FEW,
    "ssdlite320_mobilenet_v3_large": small_columns("mobilenet_v3_large")
    | {"extra_filters": (16, 8, 8, 8), "candidates": 100},
}

PIXELS = images(count=2, size=96)
RESNET, SECOND, MOBILENET = [*TINY][:3]  # the MobileNet has the head of the first, the second its backbone


def tiny_detector(name, **keywords):
    columns = {"input_shape": (96, 96, 3), "num_classes": 3, "max_detections": 10, "score_threshold": 0.0}
    return kvision.create_model(name, **(columns | TINY[name] | keywords))


def trained(model):
    """With batch norms that are not the identity and answers that are not all alike."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        in_head = layer.name.startswith(("rpn.head.", "head.", "roi_heads.box_predictor"))
        if in_head and isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            fan_in = math.prod(layer.kernel.shape[:-1])
            layer.kernel.assign(random.normal(0, fan_in**-0.5, layer.kernel.shape))
    randomized(model)
    for layer in model.layers:
        if layer.name.startswith("backbone.extra.") and isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(keras.ops.ones_like(layer.beta))  # else few channels on one pixel may be dead
    return model


@pytest.fixture(scope="module", params=mostly_slow([SSD, RCNN], RCNN))
def with_formula_weights(request):
    name = request.param
    entry = ENTRIES[name]
    model = kvision.create_model(name, input_shape=entry["input"], score_threshold=entry["score_threshold"])
    kvision.weights.load(model, formula_weights(entry["names"], entry["gain"]))
    return name, model, formula_image(*entry["input"][:2])[None].astype("float32")


@pytest.mark.parametrize("name", mostly_slow(PUBLISHED, SSD))
def test_parameters(name):
    model = built_without_memory(name)
    sizes = [sum(math.prod(v.shape) for v in of) for of in (model.trainable_variables, model.weights)]
    assert (*sizes,) == PUBLISHED[name]
    assert sizes[0] == kvision.info(name).variant.params
    shapes = {key: [v.shape[i] for i in axes] for key, (v, axes, _) in
              kvision.weights._parameters.parameters(model).items()}  # fmt: skip
    for key, shape in ENTRIES.get(name, {"names": {}})["names"].items():
        assert math.prod(shapes.pop(key)) == math.prod(shape)
    assert name not in ENTRIES or not shapes


def test_raw_outputs_are_torchvisions(with_formula_weights):
    name, model, pixels = with_formula_weights
    if name == SSD:
        features = ["blocks.5.0.bn1.act", "c5", *(f"backbone.extra.{i}.2.1.act" for i in range(4))]
        steps = {"cls_logits": 10, "bbox_regression": 5, "anchors": 5}
    else:
        features = ["backbone.fpn.layer_blocks.0.0", "backbone.fpn.layer_blocks.1.0", "backbone.fpn.pool"]
        steps = {"anchors": 5, "rpn_deltas": 5, "rpn_logits": 5}
    layers = {layer: model.get_layer(layer).output for layer in features}
    outputs = keras.Model(model.input, layers | detection.raw(model).output)(pixels)
    ours = {key: outputs[key][0, ::step] for key, step in steps.items()}
    ours |= {f"feature_{i}": outputs[layer][0, ::2, ::2, ::16] for i, layer in enumerate(features)}
    if name == RCNN:
        boxes = np.array([
            [0, 0, 64, 48], [10, 20, 200, 180], [33.5, 40.25, 97.75, 160.5], [0, 0, 319, 255],
            [150, 100, 160, 112], [250, 8, 318, 250], [5, 200, 300, 255], [100, 60, 260, 220],
        ], "float32")[None]  # fmt: skip
        x = model.get_layer("roi_heads.box_roi_pool")([outputs[layer] for layer in features[:2]], boxes)[0]
        ours["regions"] = x[..., ::16]
        for part in ("fc6", "flatten", "fc7"):
            x = model.get_layer(f"roi_heads.box_head.{part}")(x)
        ours["class_logits"] = model.get_layer("roi_heads.box_predictor.cls_score")(x)
        ours["box_regression"] = model.get_layer("roi_heads.box_predictor.bbox_pred")(x)
    expected = {key for key in THEIRS if key.startswith(name) and ".found_" not in key}
    assert {f"{name}.{key}" for key in ours} == expected
    for key, values in ours.items():
        theirs = THEIRS[f"{name}.{key}"]
        assert np.linalg.norm(values - theirs) < 2e-5 * np.linalg.norm(theirs), key


def test_detections_are_torchvisions(with_formula_weights):
    name, model, pixels = with_formula_weights
    found = {key: np.asarray(value)[0] for key, value in model(pixels).items()}
    boxes, scores, labels = (THEIRS[f"{name}.found_{key}"] for key in ("boxes", "scores", "labels"))
    assert found["count"] == len(boxes) >= 100
    np.testing.assert_array_equal(found["classes"][: len(boxes)], labels - 1)
    np.testing.assert_allclose(found["scores"][: len(boxes)], scores, rtol=1e-5)
    np.testing.assert_allclose(found["boxes"][: len(boxes)], boxes, atol=5e-3)
    assert not found["boxes"][len(boxes) :].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_any_size_saving_and_training(name, tmp_path):
    model = trained(tiny_detector(name))
    found = model(PIXELS)
    assert {key: value.shape for key, value in found.items()} == {
        "boxes": (2, 10, 4), "scores": (2, 10), "classes": (2, 10), "count": (2,),
    }  # fmt: skip
    assert (np.asarray(found["count"]) > 0).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")(PIXELS)
    weights = kvision.weights.state_dict(model)
    dynamic = tiny_detector(name, input_shape=(None, None, 3), weights=weights)
    whole = dynamic(PIXELS)
    for key, value in found.items():
        np.testing.assert_array_equal(again[key], value)
        np.testing.assert_allclose(whole[key], value, rtol=1e-3, atol=1e-2)
    assert np.max(dynamic(PIXELS[:, :70, :90])["boxes"][..., 2]) <= 90
    stem, *_, top = kvision.depth_groups(model)
    assert stem[0].startswith("backbone.")
    assert not any(".body." in layer for layer in top)
    raw = detection.raw(model)
    trained_by_loss = {v.path for v in raw.trainable_variables}
    assert trained_by_loss == {v.path for v in model.trainable_variables}
    with tf.GradientTape() as tape:
        outputs = raw(PIXELS)  # in training, batch norms of maps of a pixel forget what two images add
        answers = outputs.keys() - {"anchors", "proposals"}
        loss = sum(tf.reduce_mean(outputs[key] ** 2) for key in answers)
    for variable, gradient in zip(
        raw.trainable_variables, tape.gradient(loss, raw.trainable_variables), strict=True
    ):
        assert np.any(gradient), variable.path


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_files_have_built_in_operators_and_agree(name):
    model = trained(tiny_detector(name))
    content = convert(model)
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    outputs = Interpreter(model_content=content).get_signature_runner()(image=PIXELS[:1])
    expected = model(PIXELS[:1])
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(outputs[key], value, rtol=1e-3, atol=1e-2)


@pytest.fixture(scope="module")
def small():
    """The small form of RESNET, not to be changed."""
    return trained(tiny_detector(RESNET))


@pytest.mark.slow
def test_weights_of_older_names(small):
    weights = kvision.weights.state_dict(small)
    old = {
        re.sub(r"(_blocks\.\d|rpn\.head\.conv)(\.0)+\.(?=weight|bias)", r"\1.", key): value
        for key, value in weights.items()
    }
    assert len(old.keys() - weights.keys()) == 18
    again = tiny_detector(RESNET, num_classes=None, weights=old)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), small.get_weights(), strict=True))
    with pytest.raises(UserError, match="does not fit"):
        kvision.weights.load(again, {"conv.weight": PIXELS})


@pytest.mark.slow
@pytest.mark.parametrize("name", [RESNET, SSD])
def test_weights_of_other_classes(name, small):
    weights = kvision.weights.state_dict(small if name == RESNET else tiny_detector(name))
    assert tiny_detector(name, num_classes=None, weights=weights).output
    five = kvision.weights.state_dict(tiny_detector(name, num_classes=5, weights=weights))
    differ = {key for key, value in five.items() if value.shape != weights[key].shape}
    assert differ
    assert all("classification" in key or "predictor" in key for key in differ)
