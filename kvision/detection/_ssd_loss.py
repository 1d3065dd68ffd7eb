"""The loss of single-shot detectors (Liu et al. 2015, https://arxiv.org/abs/1512.02325, section 2.2)."""

from keras import ops

from kvision.detection._matching import best_objects, overlaps_of, per_image, smooth_l1, targets_of

POSITIVE_OVERLAP = 0.5
NEGATIVES = 3  # for each positive
WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas, as in `DecodeBoxes`


def ssd_losses(outputs, boxes, classes):
    """The losses of SSDLite, as in torchvision.

    A default box is positive where it overlaps an object by at least 0.5, or no other overlaps an object
    more. Of the others three for each positive one count, those with the largest losses; images without
    objects have none. The sums are divided by the positive boxes of the batch.

    Args:
        outputs: of `raw(model)`: "anchors" `(batch, N, 4)`, "cls_logits" `(batch, N, 1 + classes)`, the
            background first, and "bbox_regression" `(batch, N, 4)`.
        boxes: float32 `(batch, most, 4)`, xyxy in pixels.
        classes: int32 `(batch, most)`; -1 is padding.

    Returns:
        A dict of "class_loss" and "box_loss", float32 `(batch,)`. Their means are the losses of the batch.
    """
    anchors, logits, deltas = (
        ops.cast(outputs[key], "float32") for key in ("anchors", "cls_logits", "bbox_regression")
    )
    objects, positive = match(overlaps_of(boxes, classes, anchors))
    labels = ops.where(positive, ops.take_along_axis(classes, objects, 1) + 1, 0)
    class_losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    counts = ops.sum(ops.cast(positive, "int32"), 1)
    hardest = ops.flip(ops.sort(ops.where(positive, 0.0, class_losses), 1), 1)
    hard = ops.arange(ops.shape(hardest)[1]) < NEGATIVES * counts[:, None]
    targets = targets_of(boxes, objects, anchors, positive, WEIGHTS)
    return {
        "class_loss": per_image(class_losses, positive, counts) + per_image(hardest, hard, counts),
        "box_loss": per_image(smooth_l1(deltas, targets, 1.0), positive, counts),
    }


def match(overlaps):
    """The object of each anchor `(batch, N)`, and whether it is positive."""
    best, objects = best_objects(overlaps)
    most, count = ops.shape(overlaps)[1:]
    favourites = ops.cast(ops.argmax(overlaps, 2), "int32")  # of each object
    favoured = ops.logical_and(
        favourites[..., None] == ops.arange(count, dtype="int32"), ops.max(overlaps, 2, keepdims=True) > 0
    )
    by = ops.where(favoured, ops.arange(most, dtype="int32")[:, None], -1)
    favouring = ops.max(by, 1)  # the last, where several objects have the same favourite
    positive = ops.logical_or(best >= POSITIVE_OVERLAP, favouring >= 0)
    return ops.where(favouring >= 0, favouring, objects), positive
