"""YOLO's loss (Redmon et al. 2016, https://arxiv.org/abs/1506.02640, equation 3)."""

from keras import ops

from kvision import boxes as box_math
from kvision.detection._yolo_v1 import decode_grid, grid_of

BOX_WEIGHT, EMPTY_WEIGHT = 5.0, 0.5  # the paper's lambda_coord and lambda_noobj


def yolo_v1_losses(outputs, boxes, classes, *, height, width):
    """The terms of YOLO's loss, each a sum over an image.

    A cell learns the object whose centre is in it, the first of several. Of the cell's boxes the one that
    overlaps the object most, the first of equal ones, is taught the object's box, and as its confidence that
    overlap; all other boxes are taught the confidence 0.

    Args:
        outputs: of `kvision.detection.raw`: "boxes" `(batch, cells, B, 4)`, see `decode_grid`; "confidences"
            `(batch, cells, B)` and "classes" `(batch, cells, classes)`.
        boxes: float32 `(batch, most, 4)`, xyxy in pixels.
        classes: int32 `(batch, most)`; -1 where there is no object.
        height, width: of the image in pixels.

    Returns:
        A dict of float32 `(batch,)`: "box_loss", "confidence_loss" and "class_loss".
    """
    raw, confidences, scores = (
        ops.cast(outputs[key], "float32") for key in ("boxes", "confidences", "classes")
    )
    grid = grid_of(raw.shape[1])
    boxes = boxes / ops.convert_to_tensor([width, height, width, height], "float32")
    cells, learned = cells_of(boxes, classes, grid)
    centres, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    corners = ops.cast(ops.stack([cells % grid, cells // grid], -1), "float32")
    targets = ops.concatenate([centres * grid - corners, ops.sqrt(ops.maximum(sides, 0.0))], -1)

    def of_objects(values):
        """Those of each object's cell, `(batch, most, ...)`."""
        places = ops.reshape(cells, (*ops.shape(cells), *[1] * (len(values.shape) - 2)))
        return ops.take_along_axis(values, places, 1)

    predicted = of_objects(ops.stop_gradient(decode_grid(raw)))
    overlaps = box_math.iou(predicted, boxes[..., None, :])[..., 0]  # (B, most, boxes)
    best = ops.argmax(overlaps, -1)[..., None]
    overlap = ops.take_along_axis(overlaps, best, -1)[..., 0]
    own = ops.take_along_axis(of_objects(raw), best[..., None], 2)[:, :, 0]
    confidence = ops.take_along_axis(of_objects(confidences), best, 2)[..., 0]
    labels = ops.one_hot(classes, scores.shape[-1], dtype="float32")

    def total(losses):
        return ops.sum(ops.where(learned, losses, 0.0), 1)

    of_boxes = ops.square(confidence - overlap) - EMPTY_WEIGHT * ops.square(confidence)
    return {
        "box_loss": BOX_WEIGHT * total(ops.sum(ops.square(own - targets), -1)),
        "confidence_loss": EMPTY_WEIGHT * ops.sum(ops.square(confidences), (1, 2)) + total(of_boxes),
        "class_loss": total(ops.sum(ops.square(of_objects(scores) - labels), -1)),
    }


def cells_of(boxes, classes, grid):
    """The cell of each object's centre, and whether it learns the object.

    Args:
        boxes: `(batch, most, 4)`, xyxy as shares of the image.
        classes: integers `(batch, most)`; -1 where there is no object.
        grid: cells along a side of the image.

    Returns:
        int32 and booleans, `(batch, most)`. Of several objects in a cell it learns the first.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    places = ops.clip(ops.cast(ops.floor(centres * grid), "int32"), 0, grid - 1)
    cells = places[..., 1] * grid + places[..., 0]
    real = ops.logical_and(classes >= 0, ops.all(boxes[..., 2:] > boxes[..., :2], -1))
    alike = ops.logical_and(cells[:, :, None] == cells[:, None], real[:, None])
    order = ops.arange(ops.shape(cells)[1])
    before = ops.logical_and(alike, order < order[:, None])
    return cells, ops.logical_and(real, ops.logical_not(ops.any(before, -1)))
