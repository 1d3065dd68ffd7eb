"""Semantic segmentation: one class a pixel."""

from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kvision import visualize
from kvision.data.images import letterbox, place, unletterbox
from kvision.data.masks import IGNORED
from kvision.errors import UserError
from kvision.intervals import bootstrap, quotients, samples
from kvision.names import listed
from kvision.tasks.task import Accuracy, Classifying, Score

CAPTIONED = 3  # classes
AUXILIARY_WEIGHT = 0.5  # of the loss of the auxiliary head (torchvision's references/segmentation)


@dataclass(frozen=True, kw_only=True)
class Segmentation(Classifying):
    """Logits `(batch, height, width, classes)` and a target `"mask"`, int32 `(batch, height, width)`.

    Pixels of the class 255 count for nothing. "predictions" of a network with named outputs is judged; the
    other heads count in training alone.

    Attributes:
        class_weights: weight of each class in the cross-entropy, whose mean over an image's pixels is
            weighted; None for equal weights.
        dice_weight: weight of the Dice loss (Milletari et al. 2016), which is added to the cross-entropy: one
            minus the mean of the soft Dice coefficients of the classes that the image has.
    """

    name: ClassVar = "segmentation"
    target: ClassVar = "mask"
    targets: ClassVar = "masks"
    rank: ClassVar = 4
    own_size: ClassVar = True
    monitor: ClassVar = "mean_iou"
    score: ClassVar = "mean IoU"
    agreement: ClassVar = "it gives the Keras model's first class for {share} of the pixels of {images}"

    class_weights: tuple[float, ...] | None = None
    dice_weight: float = 0.0

    def __post_init__(self):
        weights, classes = self.class_weights, len(self.class_names)
        if classes > IGNORED:
            raise UserError(
                f"Masks have at most {IGNORED} classes, as the value {IGNORED} is for ignored pixels; got "
                f"{classes}."
            )
        if weights is None:
            return
        good = all(np.isfinite(weight) and weight >= 0 for weight in weights)
        if len(weights) != classes or not good or not any(weights):
            raise UserError(
                f"`class_weights` must be {classes} weights, one a class, of at least 0 and not all 0; got "
                f"{','.join(f'{weight:g}' for weight in weights)}."
            )

    @property
    def draws(self):
        """See `Task.draws`."""
        return True

    def losses(self, outputs, batch, training):
        """See `Task.losses`; an auxiliary head's term has the head's name."""
        heads = outputs if isinstance(outputs, dict) else {"predictions": outputs}
        losses = {"loss": self._loss(heads["predictions"], batch["mask"])}
        if training:
            losses |= {
                f"{head}_loss": AUXILIARY_WEIGHT * self._loss(logits, batch["mask"])
                for head, logits in heads.items()
                if head != "predictions"
            }
        return losses

    def sums(self, outputs, batch):
        """The confusion matrix, "confusion": pixels `(class, predicted class)`."""
        logits = outputs["predictions"] if isinstance(outputs, dict) else outputs
        classes = len(self.class_names)
        pairs = classes * ops.cast(batch["mask"], "int32") + ops.cast(ops.argmax(logits, -1), "int32")
        known = (batch["weight"][:, None, None] > 0) & (batch["mask"] != IGNORED)
        ones = ops.cast(ops.ravel(known), "int32")  # float32 would count to 2**24
        pairs = ops.where(known, pairs, 0)
        counts = ops.segment_sum(ones, ops.ravel(pairs), num_segments=classes**2)
        return {"confusion": ops.cast(ops.reshape(counts, (classes, classes)), "float32")}

    def metrics(self, sums):
        """The loss, and what `scores` says of the confusion matrix."""
        means = super().metrics({name: value for name, value in sums.items() if name != "confusion"})
        return means | scores(np.asarray(sums["confusion"], np.float64))

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: the whole image, letterboxed."""
        return place(image, size, *letterbox(tf.shape(image)[:2], size), interpolation=interpolation)

    def restore(self, answer, shape, size):
        """The mask of an image, integers `shape`, the most probable of the resized probabilities."""
        return unletterbox(answer, shape).numpy().argmax(-1)

    def judge(self, answers, batch):
        """The confusion matrix at the images' own sizes."""
        confusions = [
            self._confusion(self.restore(answer, mask.shape, answer.shape[:2]), mask)
            for answer, mask in zip(answers, batch["mask"], strict=True)
        ]
        return {"images": np.sum(batch["weight"]), "confusion": np.sum(confusions, 0, np.float64)}

    def figures(self, sums):
        """The four `scores`, and "class_iou", the intersection over union by class.

        Raises:
            UserError: no pixel of the masks has a class.
        """
        confusion = _nonempty(sums["confusion"])
        by_class = dict(zip(self.class_names, class_iou(confusion).tolist(), strict=True))
        return {**scores(confusion), "class_iou": by_class}

    def report(self, sums):
        """The four scores, and the intersection over union of each class.

        Raises:
            UserError: see `figures`.
        """
        figures = self.figures(sums)
        by_class = figures.pop("class_iou")
        values = [f"{name.replace('_', ' ')} {100 * score:.2f} %" for name, score in figures.items()]
        width = max(map(len, self.class_names))
        lines = [
            f"  {name:{width}}  {'no pixel' if np.isnan(iou) else f'{100 * iou:6.2f} %'}"
            for name, iou in by_class.items()
        ]
        return "\n".join([", ".join(values).replace("iou", "IoU"), *lines])

    def compare(self, found, expected, targets):
        """The mean IoU and the pixel accuracy, with bootstrap intervals over the images."""
        (iou, accuracy), (their_iou, _) = (
            self._metrics_of_samples(answers.classes, targets) for answers in (found, expected)
        )
        return Accuracy(
            {
                name: Score(float(values[0]), bootstrap(values))
                for name, values in (("mean IoU", iou), ("pixel accuracy", accuracy))
            },
            drop=float(their_iou[0] - iou[0]),
            drop_interval=bootstrap(their_iou - iou),
        )

    def caption(self, answer, probabilities=None):
        """The classes with the largest areas."""
        return ", ".join(line.strip() for line in self.describe(answer[answer != IGNORED], CAPTIONED))

    def preview(self, model, batch):
        """See `Task.preview`: the images under the colours of their masks."""
        return [
            (visualize.overlay(image, mask, self.class_names), "")
            for image, mask in zip(batch["image"], batch["mask"], strict=True)
        ]

    def comparable(self, answer, target):
        """See `Exported.comparable`: pixels that the mask ignores are ignored in the answer."""
        return np.where(target == IGNORED, IGNORED, answer)

    def picture(self, image, answer):
        """The mask in colour."""
        return visualize.mask_image(answer)

    def remarks(self, sums):
        """The classes of which masks have no pixel.

        Raises:
            UserError: no pixel of the masks has a class.
        """
        pixels = np.asarray(_nonempty(sums["confusion"])).sum(1)
        absent = [name for name, count in zip(self.class_names, pixels, strict=True) if not count]
        if not absent:
            return []
        return [
            f"The masks have no pixel of {listed(absent)}: a mask holds the numbers of classes, from 0 on, "
            f"and {IGNORED} for pixels that are ignored."
        ]

    def describe(self, prediction, most):
        """The classes with the largest shares of the image."""
        areas = np.bincount(prediction.ravel(), minlength=len(self.class_names))
        return [
            f"{100 * areas[number] / prediction.size:5.1f} %  {number}  {self.class_names[number]}"
            for number in np.argsort(-areas, kind="stable")[:most]
            if areas[number]
        ]

    def pictures(self, image, prediction):
        """The image under the colours of its classes, and the mask."""
        return {
            "_overlay.png": visualize.overlay(image, prediction, self.class_names),
            "_mask.png": visualize.mask_image(prediction),
        }

    def _confusion(self, predicted, mask) -> np.ndarray:
        """The confusion matrix of an image."""
        classes, known = len(self.class_names), mask != IGNORED
        pairs = classes * mask[known].astype(np.int64) + predicted[known]
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def _metrics_of_samples(self, predicted, masks) -> tuple[np.ndarray, np.ndarray]:
        """The mean IoU and the pixel accuracy over all images, and then over samples of them."""
        confusions = map(self._confusion, predicted, masks)
        sums = [(np.diag(matrix), matrix.sum(0) + matrix.sum(1)) for matrix in confusions]
        right, areas = (samples(len(sums)) @ np.array(parts) for parts in zip(*sums, strict=True))
        present = areas > 0
        iou = np.divide(right, areas - right, out=np.zeros_like(right), where=present)
        return quotients(iou.sum(-1), present.sum(-1)), quotients(2 * right.sum(-1), areas.sum(-1))

    def _loss(self, logits, mask):
        known = ops.cast(mask != IGNORED, "float32")
        targets = ops.one_hot(ops.where(mask != IGNORED, mask, 0), logits.shape[-1])
        weight = known
        if self.class_weights is not None:
            weight = known * ops.sum(targets * ops.convert_to_tensor(self.class_weights, "float32"), -1)
        losses = keras.losses.categorical_crossentropy(targets, logits, True)
        loss = _share(ops.sum(weight * losses, (1, 2)), ops.sum(weight, (1, 2)))
        if self.dice_weight:
            targets = targets * known[..., None]
            probabilities = ops.softmax(logits) * known[..., None]
            there = ops.sum(targets, (1, 2))
            dice = _share(
                2 * ops.sum(targets * probabilities, (1, 2)), there + ops.sum(probabilities, (1, 2))
            )
            present = ops.cast(there > 0, "float32")
            loss += self.dice_weight * (1 - _share(ops.sum(present * dice, -1), ops.sum(present, -1)))
        return loss


def _share(part, whole):
    """The quotient; 0 where both are 0."""
    return part / ops.maximum(whole, 1e-12)


def scores(confusion: np.ndarray) -> dict[str, float]:
    """The four scores of Long et al. 2015, section 5, in [0, 1], of the classes that occur.

    Args:
        confusion: pixels `(class, predicted class)`.

    Returns:
        "mean_iou"; "pixel_accuracy"; "mean_accuracy", of the classes; and "frequency_weighted_iou". All are 0
        where there is no pixel.
    """
    pixels, right = confusion.sum(1), np.diag(confusion)
    iou = class_iou(confusion)
    present = pixels > 0
    frequency = pixels / max(pixels.sum(), 1)
    return {
        "mean_iou": float(np.nanmean(iou)) if confusion.any() else 0.0,
        "pixel_accuracy": float(right.sum() / max(pixels.sum(), 1)),
        "mean_accuracy": float(np.mean(right[present] / pixels[present])) if present.any() else 0.0,
        "frequency_weighted_iou": float(np.nansum(frequency * iou)),
    }


def _nonempty(confusion):
    """The confusion matrix, which counts a pixel at least."""
    if not np.any(confusion):
        raise UserError(f"No pixel of the masks has a class: all are {IGNORED}, which is ignored.")
    return confusion


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class; NaN where it occurs neither in masks nor in predictions."""
    right = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - right
    return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
