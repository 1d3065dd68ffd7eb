"""The contract of every network in the registry."""

import inspect
import math
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    DISTINCT,
    built_without_memory,
    equal,
    mostly_slow,
    randomized,
    small_columns,
    tiny,
    tiny_shape,
)

import kvision
from kvision import networks

SHARED = [
    "include_top", "weights", "input_shape", "pooling", "num_classes",
    "classifier_activation", "preprocess", "name", "allow_nonfinite",
]  # fmt: skip


FEW = ("convnext_v2_atto", "deit_base_distilled", "densenet121", "lenet5", "mobilenet_v1", "resnet18")


def pixels(model, batch=4):
    return np.random.default_rng(0).uniform(0, 255, (batch, *model.input_shape[1:])).astype("float32")


def weighty(model):
    return [layer.name for layer in model.layers if layer.weights]


def test_one_name_for_the_builder_the_model_and_the_registry(built, request):
    name = request.node.callspec.params["built"]
    builder, row = getattr(kvision.models, name), type(kvision.info(name).variant)
    assert built.name == name
    assert (builder.__module__, builder.__name__) == ("kvision.models", name)
    assert f"see `kvision.models.{row.__name__}`" in builder.__doc__
    assert getattr(kvision.models, row.__name__) is row


def test_the_package_has_the_registered_builders_and_their_rows():
    """And two builders of points between the rows of a table."""
    public = {}
    exec("from kvision.models import *", public)
    rows = {type(kvision.info(name).variant).__name__ for name in kvision.list_models(task="classification")}
    builders = {*kvision.list_models(task="classification"), "efficientnet", "convnext_roadmap"}
    assert public.keys() - {"__builtins__"} == builders | rows


def test_default_input_is_the_published_size(built):
    variant = kvision.info(built.name).variant
    size = variant.image_size
    assert built.input_shape == (None, size, size, len(variant.preprocess.mean))
    assert built.output_shape == (None, variant.num_classes)


UNPADDED = {
    "alexnet",
    "inception_v3",
    "lenet",
    "vgg_cnn",
    "xception",
}  # maps are smaller than size / stride


def test_taps_are_at_their_strides(built):
    size, family = built.input_shape[1], kvision.info(built.name).family
    taps = [layer.name for layer in built.layers if re.fullmatch(r"c\d", layer.name)]
    assert all(isinstance(built.get_layer(name), keras.layers.Identity) for name in [*taps, "trunk"])
    assert taps == sorted(taps)
    if family in ("vit", "deit"):
        assert len(taps) == 1
    else:
        assert taps[-1] == {"lenet5": "c2", "vit_base_r50_s16": "c4"}.get(built.name, "c5")
    for tap, feature_map in kvision.features(built, taps).output.items():
        level, shape = int(tap[1:]), feature_map.shape
        if family in UNPADDED or "patch14" in built.name:
            assert -0.2 < math.log2(size / shape[1]) - level < 0.7
        else:
            assert shape[1:3] == (-(-size // 2**level),) * 2


COLUMNS = {  # of the papers' and the released code's tables
    "resnet101": {"depths": (3, 4, 23, 3), "groups": 1, "dropout_rate": 0.0, "norm_epsilon": 1e-5},
    "efficientnet_b3": {"width_multiplier": 1.2, "depth_multiplier": 1.4, "dropout_rate": 0.3, "lite": False},
    "vit_large_patch32": {"patch_size": 32, "filters": 1024, "depth": 24, "num_heads": 16},
    "swin_small": {"depths": (2, 2, 18, 2), "window_size": 7, "drop_path_rate": 0.3},
    "densenet161": {"depths": (6, 12, 36, 24), "growth_rate": 48, "compression": 0.5},
    "lenet5": {"num_classes": 10, "activation": "tanh"},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_signature_shows_the_published_values(name):
    parameters = inspect.signature(getattr(kvision.models, name)).parameters
    assert {column: parameters[column].default for column in COLUMNS[name]} == COLUMNS[name]


@pytest.mark.parametrize("name", mostly_slow(DISTINCT, *FEW))
def test_signature_shows_the_keywords_that_are_taken_and_what_they_are_by_default(name):
    builder = getattr(kvision.models, name)
    parameters = inspect.signature(builder).parameters
    assert list(parameters)[: len(SHARED)] == SHARED
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    shown = {key: parameter.default for key, parameter in parameters.items()}
    with pytest.raises(TypeError, match="Unknown keyword 'no_such'") as error:
        builder(no_such=1)
    listed = re.search("Valid names: (.*)\\.", str(error.value))
    assert listed
    assert listed[1].split(", ") == list(parameters)
    small = small_columns(name) | {"input_shape": tiny_shape(name)}
    explicit, plain = (built_without_memory(name, **columns) for columns in (shown | small, small))
    assert explicit.get_config() == plain.get_config()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet50", ("resnet50: 25,557,032 trainable parameters, 224", "He et al. 2015", "group_width")),
        ("lenet5", ("lenet5: 61,706 trainable parameters, 32 x 32", "LeCun et al. 1998", "subsampling")),
        ("deit_tiny", ("deit_tiny: 5,717,416 trainable parameters", "Touvron et al. 2020", "ViTVariant")),
    ],
)  # fmt: skip
def test_docstring(name, says):
    doc = inspect.getdoc(getattr(kvision.models, name))
    assert all(text in doc for text in says)


@pytest.mark.parametrize("name", mostly_slow(DISTINCT, *FEW, "mobilenet_v4_hybrid_medium", "swin_v2_base"))
def test_every_weight_has_a_gradient(name):
    keras.utils.set_random_seed(0)
    model = randomized(tiny(name, dropout_rate=0.0, classifier_activation=None))
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


@pytest.mark.parametrize(
    "small", mostly_slow(DISTINCT, *FEW, "mobilenet_v3_large", "swin_v2_base"), indirect=True
)
def test_a_saved_model_gives_the_same_outputs(small, tmp_path):
    _, model = small
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(pixels(model)), again(pixels(model)))


def test_a_saved_model_has_its_taps(tmp_path):
    model = tiny("resnet18")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    maps = [kvision.features(network, "c3")(pixels(model))["c3"] for network in (model, again)]
    assert maps[0].ndim == 4
    np.testing.assert_array_equal(*maps)


WITHOUT_KVISION = """
import sys
sys.modules["kvision"] = None
import keras, numpy as np
pixels = np.load("pixels.npy")
for path in sys.argv[1:]:
    model = keras.saving.load_model(path)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    np.save(f"{path}.npy", np.asarray(model(pixels)))
"""


def test_keras_alone_opens_networks_of_its_own_layers(tmp_path):
    """Convolutions and batch norms, also trained in mixed precision on several devices."""
    model = randomized(tiny("resnet50"))
    np.save(tmp_path / "pixels.npy", pixels(model))
    model.save(tmp_path / "plain.keras")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trained = tiny("resnet50")
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in trained.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    trained.set_weights(model.get_weights())
    networks.portable(trained).save(tmp_path / "trained.keras")
    files = "plain.keras", "trained.keras"
    subprocess.run([sys.executable, "-c", WITHOUT_KVISION, *files], cwd=tmp_path, check=True)
    for file in files:
        np.testing.assert_array_equal(np.load(tmp_path / f"{file}.npy"), model(pixels(model)))
        assert equal(tiny("resnet50", weights=tmp_path / file), model)


@pytest.mark.parametrize("small", mostly_slow(DISTINCT, *FEW, "mobilenet_v4_hybrid_medium"), indirect=True)
def test_mixed_precision_has_the_same_layers_and_normalises_and_answers_in_float32(small):
    name, again = small
    policy = keras.DTypePolicy("mixed_bfloat16")
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert weighty(model) == weighty(again)  # names do not count what was built before
    assert model.get_layer("preprocess").compute_dtype == "float32"
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers if layer.weights}
    assert keras.backend.standardize_dtype(model(pixels(model)).dtype) == "float32"


# Their dense layers cover as much as the published image leaves, or their maps are of fixed size.
FIXED = {"alexnet", "vgg", "vgg_cnn", "vit", "vit_hybrid", "deit", "swin"}


@pytest.mark.parametrize(
    "small",
    mostly_slow([name for name in DISTINCT if kvision.info(name).family not in FIXED], *FEW),
    indirect=True,
)
def test_channels_and_any_size(small):
    name, smallest = small[0], small[1].input_shape[1]
    model = tiny(name, input_shape=(None, None, 1))
    for size in (smallest, smallest + 15):
        assert model(np.zeros((2, size, size, 1), "float32")).shape == (2, 3)


def test_published_sizes_and_larger_ones_share_weights():
    """Each window of a larger map is answered, and the answers are averaged."""
    columns = {"filters": (8,) * 5, "hidden_filters": 16, "num_classes": 3}
    model, larger = (kvision.models.vgg11(input_shape=(n, n, 3), **columns) for n in (224, 256))
    kvision.weights.load(larger, kvision.weights.state_dict(model))
    plain = np.full((1, 256, 256, 3), 99, "float32")
    assert larger(plain).shape == model(plain[:, :224, :224]).shape == (1, 3)
