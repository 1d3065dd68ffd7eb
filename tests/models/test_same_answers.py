"""Networks in other dtypes, and copies of networks, give the same answers."""

import keras
import numpy as np
import pytest
from helpers import mostly_slow, randomized, tiny

import kvision


@pytest.fixture(params=mostly_slow(["float16", "bfloat16", "float64"], "float16"))
def floatx(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "name",
    mostly_slow(
        ["mobilenet_v4_hybrid_medium", "deit_tiny_distilled", "swin_tiny", "alexnet"],
        "swin_tiny",
    ),
)
def test_any_floatx_gives_the_same_answers(name, floatx):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 3)).astype("float32")
    columns = {"input_shape": (80, 80, 3), "classifier_activation": None}
    keras.utils.set_random_seed(1)  # with others, batch norms over tiny maps enlarge the rounding
    model = randomized(tiny(name, **columns))
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    expected = tiny(name, **columns)
    kvision.weights.load(expected, kvision.weights.state_dict(model))
    wide = "float64" if floatx == "float64" else "float32"
    assert model.weights[0].dtype == floatx
    assert model.get_layer("preprocess").compute_dtype == wide
    normalise = [keras.Model(m.input, m.get_layer("preprocess").output) for m in (model, expected)]
    np.testing.assert_allclose(*(m(pixels) for m in normalise), rtol=1e-6, atol=1e-6)
    answer = np.asarray(model(pixels))
    assert answer.dtype == wide
    error = np.linalg.norm(answer - expected(pixels)) / np.linalg.norm(expected(pixels))
    assert error < {"float16": 5e-2, "bfloat16": 2e-1, "float64": 1e-5}[floatx]


@pytest.mark.slow
def test_copies_and_frozen_copies_give_the_same_answers():
    model = randomized(tiny("mobilenet_v4_hybrid_medium"))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    for copy in (keras.models.clone_model(model), keras.Model.from_config(model.get_config())):
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy(pixels), model(pixels))
    backbone = copy
    backbone.trainable = False
    classifier = keras.Sequential([backbone, keras.layers.Dense(2, "softmax")])
    classifier.compile("sgd", "sparse_categorical_crossentropy")
    classifier.fit(pixels, np.array([0, 1]), verbose=0)
    np.testing.assert_array_equal(backbone(pixels), model(pixels))  # the batch norms' statistics too
