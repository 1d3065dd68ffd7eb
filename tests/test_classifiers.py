"""Opening files that others wrote."""

import keras
import numpy as np
import pytest

from kvision import networks
from kvision.errors import UserError
from kvision.opening import open_model
from kvision.spec import IMAGENET, PLUS_MINUS_ONE, Preprocess

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")


def network(*ends, size=8):
    inputs = keras.Input((size, size, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    for end in ends:
        x = end(x)
    return keras.Model(inputs, x)


def dense(activation=None):
    return keras.layers.Dense(4, activation)


def averaged(activation):
    return network(lambda x: keras.layers.Average()([dense(activation)(x), dense(activation)(x)]))


SIGMOIDS = {
    "activation": lambda: network(dense("sigmoid")),
    "operation": lambda: network(dense(), keras.ops.sigmoid),
    "averaged": lambda: averaged("sigmoid"),
    "nested": lambda: keras.Sequential([keras.Input((8, 8, 3)), network(keras.layers.Dense(1, "sigmoid"))]),
}
PROBABILITIES = {
    "activation": lambda: network(dense("softmax")),
    "layer": lambda: network(dense(), keras.layers.Softmax()),
    "operation": lambda: network(dense(), keras.ops.softmax),
    "nested": lambda: keras.Sequential([keras.Input((8, 8, 3)), network(dense("softmax"))]),
    "cast": lambda: network(dense("softmax"), keras.layers.Activation("linear", dtype="float32")),
    "averaged": lambda: averaged("softmax"),
    "summed": lambda: network(lambda x: (dense("softmax")(x) + dense("softmax")(x)) / 2),
}
LOGITS = {
    "linear": lambda: network(dense()),
    "pooled": lambda: network(),
    "averaged": lambda: averaged(None),
    "positive": lambda: averaged("relu"),
    "nested": lambda: keras.Sequential([keras.Input((8, 8, 3)), network(dense())]),
}
OTHERS = {
    "operation": lambda: network(dense(), keras.ops.tanh),
    "nested": lambda: keras.Sequential([keras.Input((8, 8, 3)), network(dense("relu"))]),
    "pixels": lambda: keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 1, activation="sigmoid")]
    ),
}


def opened(make, folder, **keywords):
    model = make()
    model.save(folder / "model.keras")
    return model, open_model(str(folder / "model.keras"), **keywords).model


@pytest.mark.parametrize("make", PROBABILITIES.values(), ids=PROBABILITIES)
def test_probabilities_are_left_alone(make, tmp_path):
    model, found = opened(make, tmp_path)
    np.testing.assert_array_equal(found(PIXELS), model(PIXELS))


@pytest.mark.parametrize("make", SIGMOIDS.values(), ids=SIGMOIDS)
def test_sigmoids_are_of_several_labels(make, tmp_path):
    model, found = opened(make, tmp_path)
    np.testing.assert_array_equal(found(PIXELS), model(PIXELS))
    assert open_model(str(tmp_path / "model.keras")).task.name == "multilabel"


@pytest.mark.parametrize("make", LOGITS.values(), ids=LOGITS)
def test_logits_get_a_softmax(make, tmp_path):
    model, found = opened(make, tmp_path)
    np.testing.assert_allclose(found(PIXELS), keras.ops.softmax(model(PIXELS)), atol=1e-6)


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_ends_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match="'(sigmoid|relu|tanh)'; logits or a softmax"):
        opened(make, tmp_path)


def test_a_normalisation_becomes_a_layer():
    bare = network(dense("softmax"))
    for preprocess in (PLUS_MINUS_ONE, IMAGENET, Preprocess((10,), (20,))):
        model = networks.normalized(bare, preprocess)
        mean, std = np.array(preprocess.mean, "float32"), np.array(preprocess.std, "float32")
        np.testing.assert_allclose(model(PIXELS), bare((PIXELS - mean) / std), atol=1e-5)
        found = networks.preprocess_of(model)
        assert found == preprocess.for_channels(3)
        with pytest.raises(UserError, match="has a layer 'preprocess' already"):
            networks.normalized(model, preprocess)
    assert networks.preprocess_of(bare) is None
    with pytest.raises(UserError, match="images of 3 channels; got a mean and std of 2"):
        networks.normalized(bare, Preprocess((1, 2), (3, 4)))


def test_proposals_stay_beside_normalised_images():
    shapes = {"image": (None, None, 3), "proposals": (5, 4)}
    given = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    outputs = {"mean": keras.ops.mean(given["image"], (1, 2)), "boxes": given["proposals"] + 1}
    model = networks.functional(keras.Model(given, outputs), (8, 8, 3))
    assert networks.image_shape(model) == (None, 8, 8, 3)
    model = networks.normalized(model, Preprocess((10,), (20,)))
    found = model({"image": np.full((2, 8, 8, 3), 50.0), "proposals": np.ones((2, 5, 4))})
    np.testing.assert_allclose(found["mean"], np.full((2, 3), 2.0))
    np.testing.assert_array_equal(found["boxes"], np.full((2, 5, 4), 2.0))
    assert networks.proposals_of(model) == 5


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential([keras.Input((784,)), dense()]),
        lambda: keras.Sequential([dense()]),
        lambda: keras.Model(x := keras.Input((8, 8, 3)), [dense()(x), dense()(x)]),
    ],
    ids=["rows", "not built", "two outputs"],
)
def test_what_is_no_classifier_of_images(make, tmp_path):
    with pytest.raises(
        ValueError, match="one input and one output|images with 1 or 3 channels; its input is"
    ):
        opened(make, tmp_path)


def test_a_network_of_any_size_is_given_one(tmp_path):
    model, found = opened(lambda: network(dense("softmax"), size=None), tmp_path, image_size=8)
    assert found.input_shape == (None, 8, 8, 3)
    np.testing.assert_array_equal(found(PIXELS), model(PIXELS))
    with pytest.raises(ValueError, match=r"takes images of \(8, 8\) pixels"):
        opened(lambda: network(dense()), tmp_path, image_size=9)


def test_named_outputs_without_predictions_are_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, {"classes": keras.layers.Dense(2)(x)}).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="one input and one output"):
        open_model(str(tmp_path / "model.keras"))
