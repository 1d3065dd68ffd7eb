"""Outputs against keras.applications, with its random weights copied over."""

import keras
import numpy as np
import pytest
from helpers import randomized

import kvision

APPLICATIONS = {
    "mobilenet_v1": (keras.applications.MobileNet, {}, {}),
    "mobilenet_v2": (keras.applications.MobileNetV2, {}, {}),
    "mobilenet_v2_035": (keras.applications.MobileNetV2, {"alpha": 0.35}, {"width_multiplier": 0.35}),
    "mobilenet_v3_large": (keras.applications.MobileNetV3Large, {}, {}),
    "mobilenet_v3_small": (keras.applications.MobileNetV3Small, {}, {}),
    "mobilenet_v3_large_minimal": (keras.applications.MobileNetV3Large, {"minimalistic": True}, {}),
    "mobilenet_v3_small_minimal": (keras.applications.MobileNetV3Small, {"minimalistic": True}, {}),
    "efficientnet_b0": (keras.applications.EfficientNetB0, {}, {}),
    "efficientnet_b3": (keras.applications.EfficientNetB3, {}, {}),
}


def ordered(model):
    """Weights in the order of the graph, parameters of one layer in the layer's order."""
    skipped = keras.layers.Normalization
    return [w for layer in model.layers if not isinstance(layer, skipped) for w in layer.weights]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_outputs(name):
    application, theirs, ours = APPLICATIONS[name]
    ours_name = name.removesuffix("_035")
    size = 96
    peer = randomized(
        application(weights=None, input_shape=(size, size, 3), classifier_activation=None, **theirs)
    )
    model = kvision.create_model(ours_name, input_shape=(size, size, 3), classifier_activation=None, **ours)
    pairs = list(zip(ordered(model), ordered(peer), strict=True))
    for our, their in pairs:
        our.assign(np.reshape(their, our.shape))
    pixels = np.random.default_rng(1).uniform(0, 255, (2, size, size, 3)).astype("float32")
    inputs = pixels
    if "efficientnet" in name:  # its Normalization has variances only where it has weights
        mean, std = (np.array(v) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        for layer in peer.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.mean, layer.variance = mean / 255, (std / 255) ** 2
    elif "v3" not in name:  # v1 and v2 want pixels in [-1, 1], v3 has its own Rescaling
        inputs = pixels / 127.5 - 1
    expected = np.asarray(peer(inputs, training=False))
    actual = np.asarray(model(pixels, training=False))
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 2e-5
