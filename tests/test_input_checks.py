"""Keras models that are not what they are taken for."""

import numpy as np
import pytest

from kvision import input_checks
from kvision.input_checks import by_chance, find
from kvision.spec import Preprocess

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])  # torchvision's, times 255


def reds_and_blues(count):
    """Dark red images and bright blue ones, of which a network tells both colour and brightness."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    colors = np.array([[90, 20, 10], [60, 120, 250]])[labels]
    pixels = colors[:, None, None] + random.uniform(-10, 5, (count, 4, 4, 3))
    return np.clip(pixels, 0, 255).astype("float32"), labels


def network(change, labels_of=(0, 1)):
    """One that knows two colours as `change` makes them of pixels; what is neither is class 0 to it."""
    colors = change(np.array([[90, 20, 10], [60, 120, 250]], "float32"))
    near = np.abs(colors[0] - colors[1]).max() / 4

    def predict(pixels):
        distance = np.abs(pixels.mean((1, 2))[:, None] - colors).max(-1)
        nearest = np.where(distance.min(-1) < near, distance.argmin(-1), 0)
        return np.eye(2)[nearest][:, list(labels_of)]

    return predict


def found(predict, count=40, **keywords):
    """The doubts, and what could not be checked."""
    images, labels = reds_and_blues(count)
    return find(predict, images, labels, predict(images), **keywords)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x / 255, "With RGB pixels in [0, 1] the Keras model would be right on 100.0 % of 40"),
        (lambda x: x / 127.5 - 1, "With RGB pixels in [-1, 1] "),
        (lambda x: (x - MEAN) / STD, "With RGB pixels less ImageNet's mean, over its deviation "),
        (lambda x: x[..., ::-1] / 255, "With BGR pixels in [0, 1] "),
        (lambda x: (x - MEAN)[..., ::-1], "With BGR pixels less ImageNet's mean "),
        (lambda x: x[..., ::-1], "With BGR pixels in [0, 255] "),
    ],
)
def test_pixels_that_would_do_clearly_better(change, words):
    assert words in found(network(change))[0][-1]


def scaled(pixels):
    return pixels / 127.5 - 1


def test_flags_that_give_a_network_its_pixels():
    predict = network(scaled)
    for own, words in ((False, "instead of 50.0 %: give `--input_range=-1,1`, or the model a first layer"),
                       (True, "instead of 50.0 %: give the model a first layer")):  # fmt: skip
        assert words in found(predict, own=own)[0][-1]
    assert "--" not in found(network(lambda x: scaled(x)[..., ::-1]))[0][-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scaled, "ask for: give `--input_range=-1,1` instead."),
        (lambda x: x, "ask for: leave these flags out."),
        (lambda x: x[..., ::-1] / 255, ": give the model a first layer that"),
    ],
)
def test_a_range_that_flags_ask_for_in_vain(change, words):
    images, labels = reds_and_blues(40)
    predict, given = network(change), Preprocess((0.0,), (200.0,))
    sentence = find(predict, images, labels, predict(images / 200), given=given)[0][-1]
    assert words in sentence
    assert ("the (pixel - 0) / 200 that `--input_range`, `--mean` and `--std`" in sentence) == (
        "ask" in words
    )


def test_classes_in_another_order_are_told_from_other_pixels():
    """Pixels in [0, 1] would put two of three classes right, another order all of them."""
    labels = np.arange(60) % 3
    images = np.full((60, 4, 4, 3), 40, "float32") * (1 + labels)[:, None, None, None]

    def predict(pixels):
        shown = np.rint(pixels.mean((1, 2, 3)) / (40 if pixels.max() > 1 else 40 / 255) - 1).astype(int)
        return np.eye(3)[(shown + 1) % 3 if pixels.max() > 1 else shown % 2]

    (doubt,), remarks = find(predict, images, labels, predict(images))
    assert "With its classes in another order the Keras model would be right on 100.0 % of 60" in doubt
    assert not remarks


def test_few_images_cannot_show_a_wrong_range():
    labels = np.array([0, 0, 0, 1] * 2)  # of which a network that tells nothing apart is right on six
    images, predict = reds_and_blues(2)[0][labels], network(scaled)
    doubts, (sentence,) = find(predict, images, labels, predict(images))
    assert not doubts
    assert (
        "With RGB pixels in [-1, 1] the Keras model would be right on 100.0 % of 8 images instead of 75.0 %"
        in sentence
    )
    assert (
        "so few images cannot show a wrong pixel range (`--input_range`, `--mean` and `--std`)." in sentence
    )
    assert find(predict, images, labels, predict(images), own=True) == ([], [])


def test_classes_in_another_order():
    (sentence,), _ = found(network(lambda x: x, labels_of=(1, 0)))  # half with other pixels, all of one class
    assert "right on 0.0 % of 40 images, no better than chance (50.0 %)" in sentence


def test_one_answer_for_all_images_is_chance_however_many_are_of_that_class():
    images, labels = reds_and_blues(100)
    labels = (labels * (np.arange(100) < 40)).astype(int)  # 20 of 100

    def predict(pixels):
        return np.tile([0.9, 0.1], (len(pixels), 1))

    assert (
        "right on 80.0 % of 100 images, no better than chance (80.0 %)"
        in find(predict, images, labels, predict(images))[0][0]
    )


@pytest.mark.parametrize("count", [1, 2, 4, 40, 500])
def test_a_network_that_is_right_is_not_doubted(count):
    assert found(network(lambda x: x), count) == ([], [])


@pytest.mark.parametrize(("right", "count"), [(1, 2), (2, 4), (0, 2), (14, 20), (60, 100)])
def test_few_images_and_middling_networks_are_not_doubted(right, count):
    images, labels = reds_and_blues(count)

    def predict(pixels):
        return np.eye(2)[np.where(np.arange(count) < right, labels, 1 - labels)]

    assert find(predict, images, labels, predict(images)) == ([], [])


def test_pixels_of_grey_networks():
    assert all(pixels.shape == (2, 4, 4, 1) for _, pixels in input_checks.changed(np.ones((2, 4, 4, 1))))


def test_images_of_one_class_have_the_chance_of_a_die():
    assert by_chance(np.zeros(9, int), np.zeros(9, int), 10) == pytest.approx(0.1)
    assert by_chance(np.zeros(9, int), np.arange(9) % 3, 3) == pytest.approx(1 / 3)
