"""Classification: one class an image."""

from dataclasses import dataclass
from typing import ClassVar

import keras
from keras import ops

from kvision.tasks.task import Task

AUXILIARY_WEIGHT = 0.3  # of the losses of auxiliary heads (GoogLeNet, section 5)
DISTILLED = (
    "class",
    "distillation",
)  # the heads of a distilled DeiT, which are trained as equals (equation 3)


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Logits `(batch, classes)` and a target `"label"`, int64 `(batch,)`.

    Of a network with named outputs, "predictions" is judged. The other heads count in training alone. A
    distilled DeiT trains both of its heads as equals, whose mean is "predictions".

    Attributes:
        label_smoothing: share of the label that is spread over all classes in training, in [0, 1).
    """

    name: ClassVar = "classification"
    target: ClassVar = "label"
    monitor: ClassVar = "accuracy"

    label_smoothing: float = 0.0

    def losses(self, outputs, batch, training):
        """See `Task.losses`; an auxiliary head's term has the head's name."""
        heads = outputs if isinstance(outputs, dict) else {"predictions": outputs}
        if not training:
            logits = heads["predictions"]
            return {"loss": keras.losses.sparse_categorical_crossentropy(batch["label"], logits, True)}
        losses = {head: self._smoothed_loss(logits, batch["label"]) for head, logits in heads.items()}
        if {*DISTILLED} <= losses.keys():
            return {f"{head}_loss": 0.5 * losses[head] for head in DISTILLED}
        main = losses.pop("predictions")
        return {"loss": main} | {f"{head}_loss": AUXILIARY_WEIGHT * loss for head, loss in losses.items()}

    def sums(self, outputs, batch):
        """The number of images that are classified correctly, as "accuracy"."""
        logits = outputs["predictions"] if isinstance(outputs, dict) else outputs
        right = keras.metrics.sparse_categorical_accuracy(batch["label"], logits)
        return {"accuracy": ops.sum(batch["weight"] * ops.cast(right, "float32"))}

    def _smoothed_loss(self, logits, labels):
        targets = ops.one_hot(labels, logits.shape[-1])
        return keras.losses.categorical_crossentropy(targets, logits, True, self.label_smoothing)
