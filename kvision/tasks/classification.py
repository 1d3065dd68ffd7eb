"""Classification: one class an image."""

from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kvision.data.images import fit
from kvision.intervals import paired_interval, share, wilson
from kvision.tasks.task import Accuracy, Classifying, Score

AUXILIARY_WEIGHT = 0.3  # of the losses of auxiliary heads (GoogLeNet, section 5)
TOP = 5  # classes among which the label is looked for
SMALLEST = 1e-7  # probability, as in Keras
DISTILLED = (
    "class",
    "distillation",
)  # the heads of a distilled DeiT, which are trained as equals (equation 3)


@dataclass(frozen=True, kw_only=True)
class Classification(Classifying):
    """Logits `(batch, classes)` and a target `"label"`, int64 `(batch,)`.

    "predictions" of a network with named outputs is judged. The other heads count in training alone. A
    distilled DeiT trains both of its heads as equals, whose mean is "predictions".

    Attributes:
        label_smoothing: share of the label that is spread over all classes in training, in [0, 1).
    """

    name: ClassVar = "classification"
    target: ClassVar = "label"
    targets: ClassVar = "labels"
    rank: ClassVar = 2
    monitor: ClassVar = "accuracy"
    score: ClassVar = "top-1"
    one_class: ClassVar = True

    label_smoothing: float = 0.0

    def losses(self, outputs, batch, training):
        """See `Task.losses`; an auxiliary head's term has the head's name."""
        heads = outputs if isinstance(outputs, dict) else {"predictions": outputs}
        if not training:
            return {"loss": self._loss(heads["predictions"], batch)}
        losses = {head: self._smoothed_loss(logits, batch) for head, logits in heads.items()}
        if {*DISTILLED} <= losses.keys():
            return {f"{head}_loss": 0.5 * losses[head] for head in DISTILLED}
        main = losses.pop("predictions")
        return {"loss": main} | {f"{head}_loss": AUXILIARY_WEIGHT * loss for head, loss in losses.items()}

    def sums(self, outputs, batch):
        """The number of images that are classified correctly, as "accuracy"."""
        logits = outputs["predictions"] if isinstance(outputs, dict) else outputs
        right = keras.metrics.sparse_categorical_accuracy(batch["label"], logits)
        return {"accuracy": ops.sum(batch["weight"] * ops.cast(right, "float32"))}

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: as `kvision.data.images.fit`."""
        return fit(image, size, crop=crop, interpolation=interpolation)

    def restore(self, answer, shape, size):
        """The probabilities of the classes."""
        return answer

    def judge(self, answers, batch):
        """The cross-entropy, and whether the label is the first class and among the first five."""
        labels = batch["label"]
        own = answers[np.arange(len(labels)), labels]
        first = np.argsort(-answers, axis=-1)[:, :TOP]
        return {
            "images": np.sum(batch["weight"]),
            "loss": np.sum(-np.log(np.clip(own, SMALLEST, 1))),
            "top1": np.sum(answers.argmax(-1) == labels),
            "top5": np.sum(first == labels[:, None]),
        }

    def figures(self, sums):
        """The mean "loss" and the shares of images that are right: "top1", and of many classes "top5"."""
        few = () if len(self.class_names) > TOP else ("top5",)
        return {name: value for name, value in self.metrics(sums).items() if name not in few}

    def report(self, sums):
        """The mean loss and the shares of images that are right."""
        figures = self.figures(sums)
        top5 = f", top-{TOP} {100 * figures['top5']:.2f} %" if "top5" in figures else ""
        return f"loss {figures['loss']:.4f}, top-1 {100 * figures['top1']:.2f} %{top5}"

    def compare(self, found, expected, targets):
        """Top-1, and of many classes top-5, with Wilson's intervals; the drop has that of Agresti and Min."""
        right, theirs = found.classes == targets, expected.classes == targets
        first = np.argsort(-found.probabilities, axis=-1)[:, :TOP]
        shares = {"top-1": share(right)}
        if len(self.class_names) > TOP:
            shares[f"top-{TOP}"] = share((first == targets[:, None]).any(-1))
        count, lost, won = len(targets), (theirs & ~right).sum(), (right & ~theirs).sum()
        return Accuracy(
            {name: Score(value, wilson(value, count)) for name, value in shares.items()},
            drop=float((lost - won) / count),
            drop_interval=paired_interval(lost, won, count),
        )

    def caption(self, answer, probabilities=None):
        """The class, and its probability."""
        of = "" if probabilities is None else f" {100 * probabilities.max():.0f} %"
        return f"{self.class_names[int(answer)]}{of}"

    def describe(self, prediction, most):
        """The most probable classes."""
        return [
            f"{100 * prediction[index]:5.1f} %  {index}  {self.class_names[index]}"
            for index in np.argsort(-prediction)[:most]
        ]

    def _loss(self, logits, batch):
        return keras.losses.sparse_categorical_crossentropy(batch["label"], logits, True)

    def _smoothed_loss(self, logits, batch):
        targets = ops.one_hot(batch["label"], logits.shape[-1])
        return keras.losses.categorical_crossentropy(targets, logits, True, self.label_smoothing)
