"""Which boxes learn which objects, for the losses of detectors with anchors."""

import keras
from keras import ops

from kvision import boxes as box_math

NO_MATCH = -1.0  # overlap with padding, less than that of any object


def overlaps_of(boxes, classes, references):
    """Intersection over union of objects with references, `(batch, most, N)`.

    Args:
        boxes: float32 `(batch, most, 4)`.
        classes: int32 `(batch, most)`; -1 is padding.
        references: `(batch, N, 4)`.

    Returns:
        Overlaps in [0, 1]; -1 for padding and empty boxes.
    """
    objects = ops.logical_and(classes >= 0, box_math.area(boxes) > 0)
    return ops.where(objects[..., None], box_math.iou(boxes, references), NO_MATCH)


def best_objects(overlaps):
    """The largest overlap of each reference, and the object `(batch, N)` that has it."""
    return ops.max(overlaps, 1), ops.cast(ops.argmax(overlaps, 1), "int32")


def targets_of(boxes, objects, references, positive, weights=(1.0, 1.0, 1.0, 1.0)):
    """Deltas `(batch, N, 4)` from references to their objects, 0 where they are not positive."""
    deltas = box_math.encode(ops.take_along_axis(boxes, objects[..., None], 1), references, weights)
    return ops.where(positive[..., None], deltas, 0.0)


def smooth_l1(deltas, targets, beta):
    """Sum over the four deltas: `d ** 2 / (2 beta)` of a difference below beta, else `d - beta / 2`."""
    return keras.losses.huber(targets, deltas, delta=beta) * 4 / beta


def per_image(losses, chosen, counts):
    """Sums `(batch,)` of the chosen losses, whose mean is their sum by the sum of the counts `(batch,)`."""
    sums = ops.sum(ops.where(chosen, losses, 0.0), -1)
    return sums / ops.maximum(ops.mean(ops.cast(counts, "float32")), keras.config.epsilon())
