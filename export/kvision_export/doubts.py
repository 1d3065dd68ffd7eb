"""Whether the Keras model itself is what it is taken for, by its answers on labelled images."""

from collections.abc import Callable, Iterator

import numpy as np

from kvision.spec import IMAGENET
from kvision_export.verify import paired_interval, share, wilson

MOST = 100  # images on which other pixels are tried
MEAN, STD = (",".join(map(str, values)) for values in (IMAGENET.mean, IMAGENET.std))
FLAGS = {  # of kvision-export, which give a network such pixels
    "pixels in [0, 1]": "--input_range=0,1",
    "pixels in [-1, 1]": "--input_range=-1,1",
    "pixels less ImageNet's mean": f"--mean={MEAN}",
    "pixels less ImageNet's mean, over its deviation": f"--mean={MEAN} --std={STD}",
}
SURE, CLEAR = 2.58, 0.02  # standard errors (1 of 100 by chance), and the share of images that must be won


def find(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    expected: np.ndarray,
    bare: bool = True,
) -> list[str]:
    """Reasons to doubt a model, one sentence each.

    Args:
        predict: from such images to the model's probabilities.
        images: float32 `(images, height, width, channels)` in [0, 255].
        labels: integers `(images,)`.
        expected: the model's probabilities, `(images, classes)`.
        bare: whether the model lacks a normalisation of kvision's, which kvision-export's flags can give it.
    """
    sentences, right = [], expected.argmax(-1) == labels
    chance = by_chance(expected.argmax(-1), labels, expected.shape[-1])
    if share(right) <= chance and wilson(share(right), len(right), SURE)[1] < (1 + chance) / 2:
        sentences.append(
            f"The Keras model is right on {_percent(right)} of {len(right)} images, no better than chance "
            f"({100 * chance:.1f} %): its classes may have another order than the labels, or it is untrained."
        )
    some = slice(None, None, -(-len(images) // MOST))
    images, labels, right = images[some], labels[some], right[some]
    answers = {name: predict(pixels).argmax(-1) for name, pixels in changed(images)}
    best = max(answers, key=lambda name: share(answers[name] == labels))
    other, count = answers[best] == labels, len(labels)
    sure = wilson(share(other), count, SURE)[0] > by_chance(answers[best], labels, expected.shape[-1])
    won, lost = (other & ~right).sum(), (right & ~other).sum()
    if sure and paired_interval(won, lost, count, SURE)[0] > CLEAR:
        flags = FLAGS.get(best.removeprefix("RGB "))
        how = f", as kvision-export's `{flags}` does" if bare and flags else ""
        sentences.append(
            f"With {best} the Keras model would be right on {_percent(other)} of {count} images instead of "
            f"{_percent(right)}: give it a first layer that makes them of RGB pixels in [0, 255]{how}."
        )
    return sentences


def changed(images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Images as other networks take them, and what that is called."""
    preprocess = IMAGENET.for_channels(images.shape[-1])
    mean, std = (np.array(values, np.float32) for values in (preprocess.mean, preprocess.std))
    ranges = {
        "pixels in [0, 255]": (0, 1),
        "pixels in [0, 1]": (0, 255),
        "pixels in [-1, 1]": (127.5, 127.5),
        "pixels less ImageNet's mean": (mean, 1),
        "pixels less ImageNet's mean, over its deviation": (mean, std),
    }
    if images.max() <= 1:
        ranges["these pixels times 255"] = (0, 1 / 255)
    orders = {"RGB ": 1, "BGR ": -1} if images.shape[-1] == 3 else {"": 1}
    for name, (offset, scale) in ranges.items():
        pixels = (images - np.float32(offset)) / np.float32(scale)
        for order, step in orders.items():
            yield order + name, pixels[..., ::step]


def by_chance(answers: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The share of right answers if they did not depend on the images; at the least that of a fair die."""
    if len(np.unique(labels)) < 2:
        return 1 / classes
    shares = [np.bincount(values, minlength=classes) / len(values) for values in (answers, labels)]
    return max(1 / classes, float(np.dot(*shares)))


def _percent(right) -> str:
    return f"{100 * share(right):.1f} %"
