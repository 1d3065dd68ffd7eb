"""Detectors on other backbones than their rows'."""

import math

import keras
import numpy as np
import pytest
from helpers import built_without_memory, mostly_slow, small_columns, tiny

import kvision
from kvision import detection

SIZE = 64
PYRAMID = {"hidden_filters": 8, "pyramid_filters": 8, "proposals": 10, "proposal_candidates": 20}
HEADS = {  # columns of small forms, and strides of the maps that have anchors
    "fasterrcnn_resnet50_fpn": (PYRAMID, (4, 8, 16, 32, 64)),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (PYRAMID, (16, 32, 64)),
    "ssdlite320_mobilenet_v3_large": ({"extra_filters": (8,) * 4}, (16, 32, 64, 128, 256, 512)),
    "fast_rcnn_vgg16": ({"hidden_filters": 8, "proposals": 10}, ()),
    "faster_rcnn_vgg16": ({"hidden_filters": 8, "proposals": 10, "proposal_candidates": 20}, (16,)),
}


def detector(name, backbone, **columns):
    columns = {"input_shape": (SIZE, SIZE, 3), "num_classes": 3} | HEADS[name][0] | columns
    return getattr(detection, name)(backbone=backbone, **columns)


def inputs(name):
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (1, SIZE, SIZE, 3)).astype("float32")
    if name != "fast_rcnn_vgg16":
        return images
    corners = random.uniform(0, SIZE / 2, (1, 10, 2))
    return {"image": images, "proposals": np.concatenate([corners, corners + 20], -1).astype("float32")}


@pytest.mark.parametrize("name", mostly_slow(HEADS, "fasterrcnn_resnet50_fpn", "fast_rcnn_vgg16"))
def test_a_backbone_keeps_its_weights_and_its_pixels(name, tmp_path):
    backbone = tiny("resnet18")
    model = detector(name, backbone)
    taps = {"fast_rcnn_vgg16": ["c4"], "faster_rcnn_vgg16": ["c4"]}.get(name, ["c4", "c5"])
    ours = kvision.features(keras.Model(model.input, detection.raw(model).output), taps)
    theirs = kvision.features(backbone, taps)
    found, expected = ours(inputs(name)), theirs(inputs("faster_rcnn_vgg16"))
    for tap in taps:
        np.testing.assert_allclose(found[tap], expected[tap], rtol=1e-5, atol=1e-6)
    stem, *_, top = kvision.depth_groups(model)
    assert stem[0].endswith(".conv1")
    assert all(
        layer.startswith(("backbone.fpn.", "backbone.extra.", "head.", "rpn.", "roi_")) for layer in top
    )
    outputs = detection.raw(model)(inputs(name))
    places = sum((-(-SIZE // stride)) ** 2 for stride in HEADS[name][1])
    if "anchors" in outputs:
        assert outputs["anchors"].shape[1] % places == 0
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in model(inputs(name)).items():
        np.testing.assert_allclose(reloaded(inputs(name))[key], value, rtol=1e-5, atol=1e-5)


def test_torchvisions_network_on_a_smaller_resnet():
    """`FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18"), 91)` has 28,730,006 parameters."""
    model = built_without_memory("fasterrcnn_resnet50_fpn", backbone="resnet18")
    frozen = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert not any(layer.trainable for layer in frozen)  # which torchvision does not count
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == 28_730_006
    assert {"backbone.body.conv1.weight", "backbone.body.layer4.1.bn2.running_var"} <= {
        *kvision.weights.state_dict(model)
    }


def test_a_backbone_by_name_takes_its_columns_and_weights(tmp_path):
    columns = small_columns("resnet18") | {"norm_momentum": 0.5}
    backbone = tiny("resnet18", **columns)
    backbone.save(tmp_path / "backbone.keras")
    weights = {"backbone_weights": tmp_path / "backbone.keras"}
    model = detector("fasterrcnn_resnet50_fpn", "resnet18", **columns, **weights)
    norm = model.get_layer("backbone.body.layer2.0.bn1")
    assert norm.momentum == 0.5
    np.testing.assert_array_equal(norm.gamma, backbone.get_layer("layer2.0.bn1").gamma)
    kernel = model.get_layer("backbone.body.conv1").kernel
    np.testing.assert_array_equal(kernel, backbone.get_layer("conv1").kernel)


@pytest.mark.parametrize(
    ("name", "backbone", "columns", "message"),
    [
        ("faster_rcnn_vgg16", "vgg17", {}, "must be a classifier's name, or a model; got 'vgg17'. .* 'vgg1"),
        ("faster_rcnn_vgg16", "yolox_s", {}, "must be a classifier's name"),
        (
            "faster_rcnn_vgg16",
            "resnet18",
            {"norm": True},
            "`norm` is a column of vgg16, which `backbone` rep",
        ),
        ("fasterrcnn_resnet50_fpn", "vit_tiny_patch16", {}, "vit_tiny_patch16 has no tap 'c2'. .* 'c4'"),
        ("fasterrcnn_resnet50_fpn", "model", {"depths": (1, 1, 1, 1)}, "a model has its own"),
        ("ssdlite320_mobilenet_v3_large", "model", {"input_shape": (64, 64, 1)}, "takes 3 channels"),
        (
            "ssdlite320_mobilenet_v3_large",
            "model",
            {"backbone_weights": "imagenet"},
            "need the name of a `back",
        ),
        (
            "faster_rcnn_vgg16",
            "transformer",
            {"input_shape": (96, 96, 3)},
            r"images of \(64, 64\) alone: build",
        ),
        ("yolox_nano", "resnet18", {}, "Unknown keyword 'backbone'"),
    ],
)
def test_backbones_that_do_not_fit(name, backbone, columns, message):
    models = {"model": "resnet18", "transformer": "vit_tiny_patch16"}
    backbone = tiny(models[backbone]) if backbone in models else backbone
    with pytest.raises(ValueError if name != "yolox_nano" else TypeError, match=message):
        kvision.create_model(name, backbone=backbone, **({"input_shape": (SIZE, SIZE, 3)} | columns))
