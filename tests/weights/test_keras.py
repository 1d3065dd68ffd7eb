"""Weights of keras.applications."""

import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet_v2

import kvision
from kvision.spec import PLUS_MINUS_ONE


def test_keras_applications_are_a_source(tmp_path, monkeypatch):
    """The file lies where Keras would have downloaded it to."""
    monkeypatch.setattr(mobilenet_v2.file_utils, "get_file", lambda *_, **__: str(path))
    path = tmp_path / "weights.h5"
    peer = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, classifier_activation=None, input_shape=(96, 96, 3)
    )
    with monkeypatch.context() as context:
        context.setattr("warnings.warn", lambda *_, **__: None)
        peer.save(path)
    model = kvision.models.mobilenet_v2(
        width_multiplier=0.35, weights="imagenet", classifier_activation=None, input_shape=(96, 96, 3)
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    np.testing.assert_allclose(model(pixels), peer(pixels / 127.5 - 1), rtol=1e-4, atol=1e-6)
    assert kvision.info("mobilenet_v2").weights[-1].preprocess == PLUS_MINUS_ONE
    wider = kvision.models.mobilenet_v2(
        width_multiplier=0.35, weights="imagenet", num_classes=3, input_shape=(96, 96, 4)
    )
    kernel = kvision.weights.state_dict(model)["conv_stem.weight"]
    loaded = kvision.weights.state_dict(wider)["conv_stem.weight"]
    np.testing.assert_allclose(loaded, kernel[:, [0, 1, 2, 0]] * 0.75, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "application", "keywords", "words"),
    [
        pytest.param("resnet50", "ResNet50", {}, "another network.*conv1", marks=pytest.mark.slow),
        pytest.param("densenet121", "DenseNet121", {}, "norm_epsilon=1.001e-05", marks=pytest.mark.slow),
        ("mobilenet_v2", "MobileNetV2", {"alpha": 0.35}, r"ours \(3, 3, 3, 32\)"),
        pytest.param("vgg16", "VGG19", {}, "block3_conv4", marks=pytest.mark.slow),
    ],
)
def test_other_networks_of_keras_are_refused(name, application, keywords, words):
    with keras.StatelessScope(initialize_variables=False):
        theirs = getattr(keras.applications, application)(weights=None, **keywords)
        model = kvision.create_model(name)
    keras.utils.clear_session(free_memory=False)
    with pytest.raises(ValueError, match=words):
        kvision.weights.from_keras(model, theirs)


def test_models_in_the_other_order_are_refused():
    theirs = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), alpha=0.25)
    ours = kvision.models.lenet5()
    before = theirs.get_weights()
    for pair in ((theirs, ours), (theirs, theirs), (ours, ours)):
        with pytest.raises(ValueError, match="must be a network of kvision and `keras_model` one of keras"):
            kvision.weights.from_keras(*pair)
    assert all(map(np.array_equal, before, theirs.get_weights()))
