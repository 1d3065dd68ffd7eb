"""What every network of the registry keeps."""

import inspect
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import DISTINCT, built_without_memory, tiny

import kvision

NAMES = kvision.list_models()
SHARED = [
    "include_top", "weights", "input_shape", "pooling", "num_classes",
    "classifier_activation", "preprocess", "name",
]  # fmt: skip


def pixels(model, batch=4):
    return np.random.default_rng(0).uniform(0, 255, (batch, *model.input_shape[1:])).astype("float32")


@pytest.fixture(scope="module", params=NAMES)
def built(request):
    return request.param, built_without_memory(request.param)


def test_names(built):
    name, model = built
    assert model.name == name
    assert getattr(kvision.models, name).__name__ == name
    assert name in kvision.models.__all__


@pytest.mark.parametrize("name", DISTINCT)
def test_built_twice_has_the_same_layers(name):
    model, again = tiny(name), tiny(name)
    weighty = [layer.name for layer in model.layers if layer.weights]
    assert weighty == [layer.name for layer in again.layers if layer.weights]


def test_default_input_is_the_published_size(built):
    name, model = built
    variant = kvision.info(name).variant
    size = variant.image_size
    assert model.input_shape == (None, size, size, len(variant.preprocess.mean))
    assert model.output_shape == (None, variant.num_classes)


UNPADDED = {
    "alexnetv1",
    "inceptionv3",
    "lenet",
    "vggcnn",
    "xceptionv1",
}  # maps are smaller than size / stride


def test_taps_are_at_their_strides(built):
    name, model = built
    size = model.input_shape[1]
    taps = [layer.name for layer in model.layers if re.fullmatch(r"c\d", layer.name)]
    assert all(isinstance(model.get_layer(name), keras.layers.Identity) for name in [*taps, "trunk"])
    assert taps == sorted(taps)
    if kvision.info(name).family in ("vit", "deit"):
        assert len(taps) == 1
    else:
        assert taps[-1] == ("c2" if name == "lenet5" else "c5")
    for tap, feature_map in kvision.features(model, taps).output.items():
        level, shape = int(tap[1:]), feature_map.shape
        if kvision.info(name).family in UNPADDED or "patch14" in name:
            assert -0.2 < math.log2(size / shape[1]) - level < 0.7
        else:
            assert shape[1:3] == (-(-size // 2**level),) * 2


def test_signature_shows_every_keyword(built):
    name, _ = built
    parameters = inspect.signature(getattr(kvision.models, name)).parameters
    assert list(parameters)[: len(SHARED)] == SHARED
    variant = kvision.info(name).variant
    columns = list(parameters)[len(SHARED) :]
    assert "dropout_rate" in columns
    assert {column: parameters[column].default for column in columns} == {
        column: getattr(variant, column) for column in columns
    }


def test_docstring(built):
    name, _ = built
    doc = inspect.getdoc(getattr(kvision.models, name))
    assert name in doc
    assert f"{kvision.info(name).variant.params:,}" in doc


@pytest.mark.parametrize("name", DISTINCT)
def test_every_weight_has_a_gradient(name):
    keras.utils.set_random_seed(0)
    model = tiny(name, dropout_rate=0.0, classifier_activation=None)
    with tf.GradientTape() as tape:
        logits = model(pixels(model, 16), training=True)
        loss = keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(np.array([0, 1, 2, 1] * 4), logits, True)
        )
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert np.isfinite(gradient.numpy()).all(), variable.path
        assert gradient.numpy().any(), variable.path


@pytest.mark.parametrize("name", DISTINCT)
def test_a_saved_model_gives_the_same_outputs(name, tmp_path):
    model = tiny(name)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(pixels(model)), again(pixels(model)))
    tap = next(layer.name for layer in model.layers if re.fullmatch(r"c\d", layer.name))
    maps = [kvision.features(m, (tap,))(pixels(model))[tap] for m in (model, again)]
    assert maps[0].ndim == 4
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize("name", DISTINCT)
def test_mixed_precision_normalises_and_answers_in_float32(name):
    policy = keras.DTypePolicy("mixed_bfloat16")
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("preprocess").compute_dtype == "float32"
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers if layer.weights}
    assert keras.backend.standardize_dtype(model(pixels(model)).dtype) == "float32"


# Their dense layers cover as much as the published image leaves, or their maps are of fixed size.
FIXED = {"alexnetv1", "vgg", "vggcnn", "vit", "deit", "swin"}


@pytest.mark.parametrize("name", [name for name in DISTINCT if kvision.info(name).family not in FIXED])
def test_channels_and_any_size(name):
    smallest = tiny(name).input_shape[1]
    model = tiny(name, input_shape=(None, None, 1))
    for size in (smallest, smallest + 15):
        assert model(np.zeros((2, size, size, 1), "float32")).shape == (2, 3)


def test_published_sizes_and_larger_ones_share_weights():
    """Of a larger map each window is answered, and the answers are averaged."""
    columns = {"filters": (8,) * 5, "hidden_filters": 16, "num_classes": 3}
    model, larger = (kvision.models.vgg11(input_shape=(n, n, 3), **columns) for n in (224, 256))
    kvision.weights.load(larger, kvision.weights.state_dict(model))
    plain = np.full((1, 256, 256, 3), 99, "float32")
    assert larger(plain).shape == model(plain[:, :224, :224]).shape == (1, 3)
