"""Outputs against keras.applications, with random weights copied over."""

import keras
import numpy as np
import pytest
from helpers import mostly_slow, randomized

import kvision
from kvision.spec import IMAGENET_MEAN, IMAGENET_STD

PLUS_MINUS_ONE_BY_128 = {"preprocess": kvision.Preprocess((128.0,) * 3, (128.0,) * 3)}
DENSENET = {"norm_epsilon": 1.001e-5}
APPLICATIONS = {  # ours: theirs, their keywords, our keywords
    "mobilenet_v1": ("MobileNet", {}, {}),
    "mobilenet_v2": ("MobileNetV2", {}, {}),
    "mobilenet_v2 at 0.35": ("MobileNetV2", {"alpha": 0.35}, {"width_multiplier": 0.35}),
    "mobilenet_v3_large": ("MobileNetV3Large", {}, {}),
    "mobilenet_v3_small": ("MobileNetV3Small", {}, {}),
    "mobilenet_v3_large_minimal": ("MobileNetV3Large", {"minimalistic": True}, {}),
    "mobilenet_v3_small_minimal": ("MobileNetV3Small", {"minimalistic": True}, {}),
    "efficientnet_b0": ("EfficientNetB0", {}, {}),
    "efficientnet_b3": ("EfficientNetB3", {}, {}),
    "efficientnet_v2_b0": ("EfficientNetV2B0", {}, {}),
    "efficientnet_v2_b2": ("EfficientNetV2B2", {}, {}),
    "efficientnet_v2_s": ("EfficientNetV2S", {}, PLUS_MINUS_ONE_BY_128),
    "vgg16": ("VGG16", {}, {"hidden_filters": 4096}),
    "vgg19": ("VGG19", {}, {"hidden_filters": 4096}),
    "xception": ("Xception", {}, {}),
    "densenet121": ("DenseNet121", {}, DENSENET),
    "densenet169": ("DenseNet169", {}, DENSENET),
    "densenet201": ("DenseNet201", {}, DENSENET),
    "convnext_tiny": ("ConvNeXtTiny", {}, {}),
    "convnext_small": ("ConvNeXtSmall", {}, {}),
    "convnext_base": ("ConvNeXtBase", {}, {}),
    "convnext_large": ("ConvNeXtLarge", {}, {}),
    "convnext_xlarge": ("ConvNeXtXLarge", {}, {}),
}
QUICK = ("mobilenet_v3_small",)


def by_depth(model):
    """Weights in the order in which the graph reaches their layers, the shorter path first."""
    return [
        w
        for layer in model.layers
        if not isinstance(layer, keras.layers.Normalization)
        for w in layer.weights
    ]


@pytest.mark.parametrize("name", mostly_slow(APPLICATIONS, *QUICK))
def test_outputs(name):
    application, theirs, ours = APPLICATIONS[name]
    shared = {"input_shape": (96, 96, 3), "classifier_activation": None}
    peer = getattr(keras.applications, application)(weights=None, **shared, **theirs)
    model = randomized(kvision.create_model(name.partition(" ")[0], **shared, **ours))
    for our, their in zip(by_depth(model), by_depth(peer), strict=True):
        their.assign(np.reshape(our, their.shape))
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    inputs = pixels
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    if application.startswith("EfficientNetB"):  # its Normalization has variances only where it has weights
        for layer in peer.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.mean, layer.variance = mean / 255, (std / 255) ** 2
    elif application in ("MobileNet", "MobileNetV2", "Xception"):
        inputs = pixels / 127.5 - 1
    elif application.startswith(("VGG", "DenseNet")):
        inputs = (pixels - mean) / std
    for variable in model.weights:
        variable.assign(keras.ops.zeros_like(variable))
    kvision.weights.from_keras(model, peer)
    expected = np.asarray(peer(inputs, training=False))
    actual = np.asarray(model(pixels, training=False))
    assert np.linalg.norm(expected[0] - expected[1]) > 1e-4 * np.linalg.norm(expected)  # it says something
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 2e-5
