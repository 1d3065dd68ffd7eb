"""What every network of the registry keeps."""

import inspect

import keras
import numpy as np
import pytest
from helpers import ONE_A_FAMILY, tiny

import kvision

NAMES = kvision.list_models()
SHARED = [
    "include_top", "weights", "input_shape", "pooling", "num_classes",
    "classifier_activation", "preprocess", "name",
]  # fmt: skip


def pixels(batch=4, size=64, channels=3):
    return np.random.default_rng(0).uniform(0, 255, (batch, size, size, channels)).astype("float32")


@pytest.fixture(scope="module", params=NAMES)
def built(request):
    with keras.StatelessScope(initialize_variables=False):
        return request.param, kvision.create_model(request.param)


def test_names(built):
    name, model = built
    assert model.name == name
    assert getattr(kvision.models, name).__name__ == name
    assert name in kvision.models.__all__


def test_built_twice_has_the_same_layers(built):
    name, model = built
    with keras.StatelessScope(initialize_variables=False):
        again = kvision.create_model(name)
    weighty = [layer.name for layer in model.layers if layer.weights]
    assert weighty == [layer.name for layer in again.layers if layer.weights]


def test_default_input_is_the_published_size(built):
    name, model = built
    size = kvision.info(name).variant.image_size
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, 1000)


def test_taps_are_at_their_strides(built):
    _, model = built
    size = model.input_shape[1]
    taps = {
        layer.name: layer.output.shape for layer in model.layers if isinstance(layer, keras.layers.Identity)
    }
    assert list(taps) == ["c1", "c2", "c3", "c4", "c5"]
    for level, shape in enumerate(taps.values(), 1):
        assert shape[1:3] == (-(-size // 2**level),) * 2


def test_signature_shows_every_keyword(built):
    name, _ = built
    parameters = inspect.signature(getattr(kvision.models, name)).parameters
    assert list(parameters)[: len(SHARED)] == SHARED
    variant = kvision.info(name).variant
    columns = list(parameters)[len(SHARED) :]
    assert {"norm_epsilon", "norm_momentum", "padding", "dropout_rate"} <= set(columns)
    assert {column: parameters[column].default for column in columns} == {
        column: getattr(variant, column) for column in columns
    }


def test_docstring(built):
    name, _ = built
    doc = inspect.getdoc(getattr(kvision.models, name))
    assert name in doc
    assert f"{kvision.info(name).variant.params:,}" in doc


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_every_weight_has_a_gradient(name):
    model = tiny(name, dropout_rate=0.0, classifier_activation=None)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        logits = model(pixels(16), training=True)
        loss = keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(np.array([0, 1, 2, 1] * 4), logits, True)
        )
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert np.isfinite(gradient.numpy()).all(), variable.path
        assert gradient.numpy().any(), variable.path


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_a_saved_model_gives_the_same_outputs(name, tmp_path):
    model = tiny(name)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(pixels(), verbose=0), again.predict(pixels(), verbose=0))
    assert kvision.features(again, ("c2", "c5"))(pixels())["c2"].shape[1:3] == (16, 16)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_mixed_precision_normalises_and_answers_in_float32(name):
    policy = keras.DTypePolicy("mixed_bfloat16")
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("preprocess").compute_dtype == "float32"
    assert model.get_layer("conv_stem").compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(model(pixels()).dtype) == "float32"


@pytest.mark.parametrize("name", ONE_A_FAMILY)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_and_any_size(name, channels):
    model = tiny(name, input_shape=(None, None, channels))
    for size in (32, 47):
        assert model(pixels(2, size, channels)).shape == (2, 3)
