"""Multi-label classification: any number of classes an image."""

from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kvision.intervals import bootstrap, quotients, samples
from kvision.names import listed
from kvision.tasks.classification import SMALLEST, TOP, Classification
from kvision.tasks.task import Accuracy, Score

THRESHOLD = 0.5  # probability above which an image is given a class
COUNTS = ("right", "given", "present")  # images of each class: given it and having it, given it, having it


@dataclass(frozen=True, kw_only=True)
class MultiLabel(Classification):
    """Logits `(batch, classes)` and a target `"labels"`, integers `(batch, classes)`.

    A target is 1 for each class that an image has, else 0; there may be none. The loss of an image is the
    mean over the classes of the binary cross-entropy. Networks and their heads are those of `Classification`.

    Attributes:
        label_smoothing: share of the labels that is spread over all classes in training, in [0, 1): targets
            are `(1 - share) * target + share / classes`, as timm has them.
    """

    name: ClassVar = "multilabel"
    target: ClassVar = "labels"
    targets: ClassVar = "labels"
    learner: ClassVar = "classification"
    activation: ClassVar = "sigmoid"
    fewest_classes: ClassVar = 1
    one_class: ClassVar = False
    monitor: ClassVar = "macro_f1"
    score: ClassVar = "mAP"
    agreement: ClassVar = (
        "of the labels that it or the Keras model gives to {images}, {share} are given by both"
    )

    def sums(self, outputs, batch):
        """The number of images of each class, see `COUNTS`."""
        logits = outputs["predictions"] if isinstance(outputs, dict) else outputs
        weight = batch["weight"][:, None]
        given = weight * ops.cast(ops.sigmoid(logits) > THRESHOLD, "float32")
        present = ops.cast(batch["labels"], "float32")
        counts = given * present, given, weight * present
        return dict(zip(COUNTS, (ops.sum(count, 0) for count in counts), strict=True))

    def metrics(self, sums):
        """The loss, and the two means of F1, see `f1`."""
        means = super().metrics({name: value for name, value in sums.items() if name not in COUNTS})
        macro, micro = f1(*(np.asarray(sums[name], np.float64) for name in COUNTS))
        return means | {"macro_f1": float(macro), "micro_f1": float(micro)}

    def judge(self, answers, batch):
        """The cross-entropy, the number of images of each class, and all probabilities and labels."""
        labels = batch["labels"] > 0
        right = np.clip(np.where(labels, answers, 1 - answers), SMALLEST, 1)
        given = answers > THRESHOLD
        counts = (part.sum(0) for part in (given & labels, given, labels))
        return {
            "images": np.sum(batch["weight"]),
            "loss": np.sum(-np.log(right).mean(-1)),
            "probabilities": [*answers],
            "labels": [*labels],
            **dict(zip(COUNTS, counts, strict=True)),
        }

    def figures(self, sums) -> dict:
        """The mean "loss", "map", "macro_f1", "micro_f1", and "class_ap", average precision by class."""
        kept = {name: np.array(sums[name]) for name in ("probabilities", "labels")}
        precisions = average_precisions(kept["probabilities"], kept["labels"])[0]
        means = self.metrics({name: value for name, value in sums.items() if name not in kept})
        by_class = dict(zip(self.class_names, precisions.tolist(), strict=True))
        return means | {"map": float(_mean(precisions)), "class_ap": by_class}

    def report(self, sums):
        """The mean loss, mAP, the two means of F1, and the average precision of each class."""
        figures = self.figures(sums)
        width = max(map(len, self.class_names))
        lines = [
            f"  {name:{width}}  {'no image' if np.isnan(precision) else f'{100 * precision:6.2f} %'}"
            for name, precision in figures["class_ap"].items()
        ]
        first = (
            f"loss {figures['loss']:.4f}, mAP {100 * figures['map']:.2f} %, macro F1 "
            f"{100 * figures['macro_f1']:.2f} %, micro F1 {100 * figures['micro_f1']:.2f} %"
        )
        return "\n".join([f"{first}; average precision of each class:", *lines])

    def compare(self, found, expected, targets):
        """The mAP and the macro F1, with bootstrap intervals over the images."""
        labels, counts = targets > 0, samples(len(targets))
        ours, theirs = (
            _mean(average_precisions(answers.probabilities, labels, counts)) for answers in (found, expected)
        )
        macro, _ = f1(*(counts @ part for part in (found.classes & labels, found.classes, labels)))
        return Accuracy(
            {
                name: Score(float(values[0]), bootstrap(values))
                for name, values in (("mAP", ours), ("macro F1", macro))
            },
            drop=float(theirs[0] - ours[0]),
            drop_interval=bootstrap(theirs - ours),
        )

    def caption(self, answer, probabilities=None):
        """The classes, those with the highest probabilities first, and these."""
        given = np.flatnonzero(answer)
        if probabilities is None:
            return _few([self.class_names[place] for place in given])
        given = given[np.argsort(-probabilities[given])]
        return _few([f"{self.class_names[place]} {100 * probabilities[place]:.0f} %" for place in given])

    def remarks(self, sums):
        """The classes that no image has."""
        absent = [name for name, count in zip(self.class_names, sums["present"], strict=True) if not count]
        return [f"No image has the label {listed(absent)}."] if absent else []

    def describe(self, prediction, most):
        """The classes that the image is given, and always the most probable one."""
        given = max(1, int((prediction > THRESHOLD).sum()))
        return super().describe(prediction, min(most, given))

    def _loss(self, logits, batch):
        return keras.losses.binary_crossentropy(ops.cast(batch["labels"], "float32"), logits, True)

    def _smoothed_loss(self, logits, batch):
        labels = ops.cast(batch["labels"], "float32")
        targets = (1 - self.label_smoothing) * labels + self.label_smoothing / logits.shape[-1]
        return keras.losses.binary_crossentropy(targets, logits, True)


def f1(right: np.ndarray, given: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F1 from the numbers of images of each class, `(..., classes)`, see `COUNTS`.

    Returns:
        The mean over the classes that are given or present (macro), and that of all of their images together
        (micro), `(...)`; 0 where there are none.
    """
    both = given + present
    macro = quotients(quotients(2 * right, both).sum(-1), (both > 0).sum(-1))
    return macro, quotients(2 * right.sum(-1), both.sum(-1))


def average_precisions(
    probabilities: np.ndarray, labels: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """Average precision of each class in samples of images: the sum of precision times gain in recall.

    Images of equal probability are given a class together, as scikit-learn's `average_precision_score` has
    it; nothing is interpolated.

    Args:
        probabilities, labels: `(images, classes)`.
        counts: how often each image is in each sample, `(samples, images)`; None for one sample of all.

    Returns:
        `(samples, classes)`; NaN where no image of a sample has the class.
    """
    counts = np.ones((1, len(labels))) if counts is None else counts
    found = np.full((len(counts), labels.shape[1]), np.nan)
    for place in range(labels.shape[1]):
        order = np.argsort(-probabilities[:, place])
        ordered, hits = probabilities[order, place], labels[order, place]
        last = np.append(np.diff(ordered) != 0, True)  # of equal probabilities
        sorted_counts = counts.T[order]
        taken = np.cumsum(sorted_counts, 0)[last]
        right = np.cumsum(sorted_counts * hits[:, None], 0)[last]
        area = (np.diff(right, axis=0, prepend=0) * quotients(right, taken)).sum(0)
        found[:, place] = np.divide(area, right[-1], out=found[:, place], where=right[-1] > 0)
    return found


def _mean(precisions) -> np.ndarray:
    """The mean over the classes that occur, `(...)` of `(..., classes)`; 0 where there are none."""
    return quotients(np.nansum(precisions, -1), np.isfinite(precisions).sum(-1))


def _few(texts) -> str:
    """The first of some texts, or "none"."""
    more = ["..."] if len(texts) > TOP else []
    return ", ".join([*texts[:TOP], *more]) or "none"
