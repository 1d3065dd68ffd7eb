"""Classifiers as fully convolutional networks."""

import keras
import numpy as np
import pytest
from helpers import DISTINCT, mostly_slow, randomized, tiny

import kvision
from kvision.errors import UserError
from kvision.segmentation import convolutionalize

FIXED = ("vit", "vit_hybrid", "deit", "swin")
ONE_OF_A_FAMILY = {kvision.info(name).family: name for name in reversed(DISTINCT)}


def pixels(count, height, width, channels=3):
    return np.random.default_rng(0).uniform(0, 255, (count, height, width, channels)).astype("float32")


@pytest.mark.parametrize(
    "name",
    mostly_slow(
        [name for f, name in ONE_OF_A_FAMILY.items() if f not in FIXED],
        *map(ONE_OF_A_FAMILY.get, ("alexnet", "vgg", "mobilenet_v3", "convnext")),
    ),
)
def test_answers_at_the_original_size_are_the_same(name):
    classifier = randomized(tiny(name, classifier_activation=None))
    model = convolutionalize(classifier)
    _, size, _, channels = classifier.input_shape
    images = pixels(2, size, size, channels)
    expected = np.asarray(classifier(images))
    answers = np.asarray(model(images))
    assert answers.shape == (2, 1, 1, 3)
    assert np.linalg.norm(answers[:, 0, 0] - expected) < 1e-5 * np.linalg.norm(expected)
    larger = model(pixels(1, size + 32, size + 64, channels))
    assert larger.shape[1] >= 2
    assert larger.shape[2] > larger.shape[1]


def test_a_larger_image_is_answered_by_a_sliding_window(tmp_path):
    """LeNet-5 does not pad, so that the windows are exact."""
    classifier = tiny("lenet5", input_shape=(32, 32, 1))
    model = convolutionalize(classifier)
    image = pixels(1, 44, 40, 1)
    answers = np.asarray(model(image))
    assert answers.shape == (1, 4, 3, 3)
    for row in range(4):
        for column in range(3):
            window = image[:, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
            np.testing.assert_allclose(answers[:, row, column], classifier(window), atol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(image), answers)


def test_dense_layers_that_see_a_part_and_auxiliary_heads():
    """The first hidden layer of a larger VGG answers several windows, which are averaged."""
    classifier = tiny("vgg11", input_shape=(256, 256, 3))
    image = pixels(1, 256, 256)
    np.testing.assert_allclose(convolutionalize(classifier)(image)[:, 0, 0], classifier(image), atol=1e-5)
    classifier = tiny("googlenet", auxiliary=True)
    image = pixels(1, 64, 64)
    answers = convolutionalize(classifier)(image)
    np.testing.assert_allclose(answers[:, 0, 0], classifier(image)["predictions"], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tiny("vit_tiny_patch16"), "cannot be convolutional: its PositionEmbedding 'pos_embed'"),
        (lambda: tiny("swin_tiny"), "cannot be convolutional: its WindowAttention"),
        (lambda: tiny("resnet18", include_top=False), "must have a top"),
        (lambda: tiny("resnet18", input_shape=(None, None, 3)), "must be of fixed size"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]), "no layer `trunk`"),
        (lambda: "resnet18", "must be a `keras.Model`"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(UserError, match=says):
        convolutionalize(make())
