"""YOLOX' loss, with SimOTA's assignment (Ge et al. 2021, https://arxiv.org/abs/2107.08430, section 2.1).

What the paper leaves open is as in its authors' code: the classes' cost is taken of the root of both
probabilities' product, a cell that several boxes choose goes to the one of the least cost among all, classes
are taught the overlap of box and prediction, and the box's loss, 1 - IoU**2, has the weight 5.
"""

from keras import ops

from kvision.boxes import iou
from kvision.layers import decode_cells, grid_cells

BOX_WEIGHT = 5.0
OVERLAP_WEIGHT = 3.0  # in the cost
RADIUS = 2.5  # of the centre of a box, in strides
MOST_CELLS = 10  # whose overlaps are summed to the number of cells that a box gets
OUTSIDE, IMPOSSIBLE = 1e5, 1e9  # costs
SMALLEST = 1e-7  # probability


def yolox_losses(outputs, boxes, labels, *, height, width, strides=(8, 16, 32), l1=False):
    """The terms of YOLOX' loss.

    Each term is the sum over an image's cells, divided by the mean number of assigned cells of the batch's
    images; so the mean of an epoch's images is that of its batches.

    Args:
        outputs: of `kvision.detection.raw`: "boxes" `(batch, cells, 4)`, "objectness" `(batch, cells)` and
            "classes" `(batch, cells, classes)`.
        boxes: float32 `(batch, most, 4)`, xyxy in pixels.
        labels: int32 `(batch, most)`; -1 where there is no box, which an image may have everywhere.
        height, width: of the image in pixels.
        strides: of the network's grids.
        l1: whether the raw boxes have an L1 loss too, as in the last epochs of the paper.

    Returns:
        A dict of float32 `(batch,)`: "box_loss", "objectness_loss", "class_loss", and "l1_loss" with `l1`.
        Their sum is the loss.
    """
    outputs = {key: ops.cast(value, "float32") for key, value in outputs.items()}
    corners, sides = grid_cells(height, width, strides)
    predicted = decode_cells(outputs["boxes"], corners, sides)
    chosen, overlap = assign(
        ops.stop_gradient(predicted),
        ops.stop_gradient(ops.sigmoid(outputs["classes"]) * ops.sigmoid(outputs["objectness"])[..., None]),
        boxes,
        labels,
        centres=corners + sides / 2,
        strides=sides[:, 0],
    )
    assigned = ops.any(chosen, 1)
    own = ops.argmax(ops.cast(chosen, "int32"), 1)  # of each cell, the box
    targets = ops.take_along_axis(boxes, own[..., None], 1)
    of_label = ops.one_hot(ops.take_along_axis(labels, own, 1), outputs["classes"].shape[-1], dtype="float32")
    shared = ops.maximum(
        ops.mean(ops.sum(ops.cast(assigned, "float32"), 1)), 1 / ops.cast(ops.shape(labels)[0], "float32")
    )

    def total(losses, where=None):
        losses = losses if where is None else ops.where(where, losses, 0.0)
        return ops.sum(losses, 1) / shared

    predicted = ops.where(assigned[..., None], predicted, targets)
    pairs = iou(predicted[..., None, :], targets[..., None, :])[..., 0, 0]
    of_objects = ops.binary_crossentropy(ops.cast(assigned, "float32"), outputs["objectness"], True)
    of_classes = ops.binary_crossentropy(of_label * overlap[..., None], outputs["classes"], True)
    losses = {
        "box_loss": BOX_WEIGHT * total(1 - ops.square(pairs), assigned),
        "objectness_loss": total(of_objects),
        "class_loss": total(ops.sum(of_classes, -1), assigned),
    }
    if l1:
        centres, lengths = (targets[..., :2] + targets[..., 2:]) / 2, targets[..., 2:] - targets[..., :2]
        lengths = ops.log(ops.maximum(lengths / sides, SMALLEST))
        raw = ops.concatenate([(centres - corners) / sides, lengths], -1)
        losses["l1_loss"] = total(ops.sum(ops.abs(outputs["boxes"] - raw), -1), assigned)
    return losses


def assign(predicted, scores, boxes, labels, *, centres, strides):
    """SimOTA: which cells each box is taught to.

    Args:
        predicted: `(batch, cells, 4)`, xyxy in pixels.
        scores: `(batch, cells, classes)`, the products of both probabilities.
        boxes, labels: as `yolox_losses` takes them.
        centres: of the cells in pixels, `(cells, 2)`.
        strides: of the cells, `(cells,)`.

    Returns:
        Whether a box has a cell, `(batch, most, cells)`, at most one box a cell; and of each assigned cell
        the overlap of its prediction with its box, `(batch, cells)`.
    """
    real = labels[..., None] >= 0
    low, high = centres - boxes[:, :, None, :2], boxes[:, :, None, 2:] - centres
    inside = ops.all(ops.logical_and(low > 0, high > 0), -1)
    near = ops.all(ops.abs(low - high) / 2 < RADIUS * strides[:, None], -1)
    candidates = ops.any(ops.logical_and(ops.logical_or(inside, near), real), 1, keepdims=True)
    possible = ops.logical_and(candidates, real)
    overlap = ops.where(possible, iou(boxes, predicted), 0.0)
    cost = _class_cost(scores, labels) - OVERLAP_WEIGHT * ops.log(overlap + 1e-8)
    cost = ops.where(ops.logical_and(inside, near), cost, cost + OUTSIDE)
    cost = ops.where(possible, cost, IMPOSSIBLE)
    most = min(MOST_CELLS, centres.shape[0])
    counts = ops.cast(ops.sum(ops.top_k(overlap, most)[0], -1), "int32")
    least = -ops.top_k(-cost, most)[0]
    last = ops.take_along_axis(least, ops.clip(counts - 1, 0, most - 1)[..., None], -1)
    chosen = ops.logical_and(cost <= last, possible)
    several = ops.sum(ops.cast(chosen, "int32"), 1, keepdims=True) > 1
    best = ops.argmin(cost, 1)[:, None] == ops.arange(ops.shape(boxes)[1])[:, None]
    chosen = ops.where(several, best, chosen)
    return chosen, ops.sum(ops.where(chosen, overlap, 0.0), 1)


def _class_cost(scores, labels):
    """Binary cross-entropies of the roots of scores with each box's class, summed, `(batch, most, cells)`."""
    p = ops.clip(ops.sqrt(scores), SMALLEST, 1 - SMALLEST)
    of_none = -ops.sum(ops.log(1 - p), -1)  # (B, cells)
    classes = ops.one_hot(labels, scores.shape[-1], dtype="float32")
    gains = ops.matmul(classes, ops.swapaxes(ops.log(p) - ops.log(1 - p), 1, 2))
    return of_none[:, None] - gains
