"""Checks of a Keras model by its answers: whether it gets the pixels and has the classes that are assumed."""

from collections.abc import Callable, Iterator

import numpy as np

from kvision.intervals import paired_interval, share, wilson
from kvision.names import counted
from kvision.spec import IMAGENET, Preprocess

MOST = 100  # images on which other pixels are tried
ALL_FLAGS = "`--input_range`, `--mean` and `--std`"
SURE, CLEAR = 2.58, 0.02  # standard errors (1 of 100 by chance), and the share of images that must be won


def find(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    expected: np.ndarray,
    *,
    own: bool = False,
    given: Preprocess | None = None,
) -> tuple[list[str], list[str]]:
    """Reasons to doubt a model, and what could not be checked; one sentence each.

    Args:
        predict: from such images to the model's probabilities, without the `given` normalisation.
        images: float32 `(images, height, width, channels)` in [0, 255].
        labels: integers `(images,)`.
        expected: the model's probabilities with that normalisation, `(images, classes)`.
        own: whether the model has a normalisation of kvision's.
        given: the normalisation that the flags ask for, for a model that lacks one.
    """
    right = expected.argmax(-1) == labels
    doubts = no_better_than_chance(expected.argmax(-1), labels, expected.shape[-1])
    few = len(images) < MOST
    some = slice(None, None, -(-len(images) // MOST))
    images, labels, right = images[some], labels[some], right[some]
    answers = {name: predict(pixels).argmax(-1) for name, pixels in changed(images)}
    best = max(answers, key=lambda name: share(answers[name] == labels))
    other, count = answers[best] == labels, len(labels)
    sure = wilson(share(other), count, SURE)[0] > by_chance(answers[best], labels, expected.shape[-1])
    won, lost = (other & ~right).sum(), (right & ~other).sum()
    better = (
        f"With {best} the Keras model would be right on {_percent(other)} of {counted(count, 'image')} "
        f"instead of {_percent(right)}"
    )
    if sure and paired_interval(won, lost, count, SURE)[0] > CLEAR:
        if (ordered := _in_another_order(expected[some].argmax(-1), labels)) > share(other):
            better = (
                f"With its classes in another order the Keras model would be right on {100 * ordered:.1f} % "
                f"of {counted(count, 'image')} instead of {_percent(right)}: `--labels=FILE` names its "
                "outputs in order."
            )
            return [better], []
        return [*doubts, f"{better}{_remedy(best, images.shape[-1], own, given)}."], []
    if few and not own and not doubts and won - lost > 1:
        return [], [
            f"{better}, which may be chance: so few images cannot show a wrong pixel range ({ALL_FLAGS})."
        ]
    return doubts, []


def no_better_than_chance(answers: np.ndarray, labels: np.ndarray, classes: int) -> list[str]:
    """A sentence on a model whose answers do not depend on the images; none where they do.

    Args:
        answers: the classes that the model finds the most probable, integers `(images,)`.
        labels: integers `(images,)`.
        classes: number of the model's classes.
    """
    right, chance = answers == labels, by_chance(answers, labels, classes)
    if share(right) > chance or wilson(share(right), len(right), SURE)[1] >= (1 + chance) / 2:
        return []
    return [
        f"The Keras model is right on {_percent(right)} of {counted(len(right), 'image')}, no better than "
        f"chance ({100 * chance:.1f} %): its classes may have another order than the labels, or it is "
        "untrained."
    ]


def unchecked(given: Preprocess | None, channels: int) -> str:
    """A sentence on what is not checked of a model without a normalisation of kvision's.

    Args:
        given, channels: see `find`.
    """
    pixels = f"{'RGB ' * (channels == 3)}pixels in [0, 255]"
    return (
        f"Whether the Keras model expects {f'{given} of {pixels}' if given else pixels} was not checked, as "
        "that needs images with a single label each: where it expects another range or channel order, its "
        f"answers are wrong (see {ALL_FLAGS})."
    )


def _remedy(best, channels, own, given) -> str:
    """The end of a sentence on how a model is given the pixels that would be better."""
    mean, std = (",".join(map(str, part)) for part in _imagenet(channels))
    flags = {
        "pixels in [0, 1]": "--input_range=0,1",
        "pixels in [-1, 1]": "--input_range=-1,1",
        "pixels less ImageNet's mean": f"--mean={mean}",
        "pixels less ImageNet's mean, over its deviation": f"--mean={mean} --std={std}",
    }.get(best.removeprefix("RGB "))
    if given:
        with_given = f" with the {given} that {ALL_FLAGS} ask for"
        if best.removeprefix("RGB ") == "pixels in [0, 255]":
            return f"{with_given}: leave these flags out"
        if flags:
            return f"{with_given}: give `{flags}` instead"
    layer = "a first layer that makes them of RGB pixels in [0, 255]"
    return f": give `{flags}`, or the model {layer}" if flags and not own else f": give the model {layer}"


def _imagenet(channels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    preprocess = IMAGENET.for_channels(channels)
    return preprocess.mean, preprocess.std


def changed(images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Images as other networks take them, and what that is called."""
    mean, std = (np.array(values, np.float32) for values in _imagenet(images.shape[-1]))
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


def _in_another_order(answers: np.ndarray, labels: np.ndarray) -> float:
    """The share of right answers if each class were the one that the other half of the images speaks for."""
    counts = np.zeros((2, *[1 + max(answers.max(), labels.max())] * 2))
    halves = np.random.default_rng(0).permutation(len(labels)) % 2
    np.add.at(counts, (halves, answers, labels), 1)
    return share(counts[1 - halves, answers].argmax(-1) == labels)


def _percent(right) -> str:
    return f"{100 * share(right):.1f} %"
