"""Boxes as left, top, right and bottom in pixels ("xyxy"), float32 `(..., 4)`, on any backend.

A box covers the pixels from `left` up to, but not including, `right`. Other forms are converted where they
come in and go out, by `convert`.
"""

import math

import keras
from keras import ops
from keras.utils.bounding_boxes import convert_format as convert

__all__ = ["area", "ciou", "clip", "convert", "decode", "encode", "giou", "iou"]

LARGEST_GROWTH = math.log(1000 / 16)  # of a side, as in Detectron and torchvision
SMALLEST = 1e-7  # of what is divided by


def area(boxes):
    """Areas `(...)`; 0 of a box whose right is left of its left, or whose bottom is above its top."""
    boxes = _floats(boxes)
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes, others):
    """Intersection over union of each box with each other one, in [0, 1].

    Args:
        boxes: `(..., N, 4)`.
        others: `(..., M, 4)`.

    Returns:
        `(..., N, M)`; 0 where both are empty.
    """
    boxes, others = _floats(boxes), _floats(others)
    return _iou(boxes[..., :, None, :], others[..., None, :, :])


def giou(boxes, others):
    """Generalized intersection over union of pairs of boxes, in [-1, 1] (Rezatofighi et al. 2019).

    Args:
        boxes, others: `(..., 4)`, which are broadcast against each other.
    """
    boxes, others = _floats(boxes), _floats(others)
    hull = _sides_of_hull(boxes, others)
    hull = hull[..., 0] * hull[..., 1]
    intersection = _intersection(boxes, others)
    union = area(boxes) + area(others) - intersection
    return intersection / ops.maximum(union, SMALLEST) - (hull - union) / ops.maximum(hull, SMALLEST)


def ciou(boxes, others):
    """Complete intersection over union of pairs of boxes, at most 1 (Zheng et al. 2020).

    The weight of the aspect ratio's term counts as a constant for the gradient, as in the paper.

    Args:
        boxes, others: `(..., 4)`, which are broadcast against each other.
    """
    boxes, others = _floats(boxes), _floats(others)
    overlap = _iou(boxes, others)
    hull = _sides_of_hull(boxes, others)
    distance = (boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    apart = ops.sum(ops.square(distance), -1) / ops.maximum(ops.sum(ops.square(hull), -1), SMALLEST)
    ratio = 4 / math.pi**2 * ops.square(_angle(boxes) - _angle(others))
    weight = ops.stop_gradient(ratio / ops.maximum(1 - overlap + ratio, SMALLEST))
    return overlap - apart - weight * ratio


def encode(boxes, anchors, weights=(1.0, 1.0, 1.0, 1.0)):
    """Deltas that lead from anchors to boxes (Girshick et al. 2014, appendix C), `(..., 4)`.

    Args:
        boxes, anchors: `(..., 4)`; anchors of positive sides.
        weights: factors of the deltas: of the centre's x and y, of the logarithms of width and height.
    """
    from_centres, from_sides = _centres_and_sides(_floats(anchors))
    to_centres, to_sides = _centres_and_sides(_floats(boxes))
    shifts = (to_centres - from_centres) / from_sides
    growths = ops.log(ops.maximum(to_sides, SMALLEST) / from_sides)
    return ops.concatenate([shifts, growths], -1) * ops.convert_to_tensor(weights, shifts.dtype)


def decode(deltas, anchors, weights=(1.0, 1.0, 1.0, 1.0), largest=LARGEST_GROWTH):
    """The inverse of `encode`.

    Args:
        deltas, anchors: `(..., 4)`, which are broadcast against each other.
        weights: see `encode`.
        largest: of the logarithm of a side's growth.
    """
    deltas = _floats(deltas)
    deltas = deltas / ops.convert_to_tensor(weights, deltas.dtype)
    centres, sides = _centres_and_sides(_floats(anchors))
    centres = centres + deltas[..., :2] * sides
    half = ops.exp(ops.minimum(deltas[..., 2:], largest)) * sides / 2
    return ops.concatenate([centres - half, centres + half], -1)


def clip(boxes, height, width):
    """The parts of boxes `(..., 4)` that are inside an image."""
    boxes = _floats(boxes)
    most = ops.stack([ops.cast(side, boxes.dtype) for side in (width, height, width, height)])
    return ops.minimum(ops.maximum(boxes, 0), most)


def _floats(boxes):
    """A tensor of float32 or wider: areas overflow in other dtypes."""
    if not ops.is_tensor(boxes):
        return ops.convert_to_tensor(boxes, "float32")
    return boxes if keras.backend.standardize_dtype(boxes.dtype) == "float64" else ops.cast(boxes, "float32")


def _intersection(boxes, others):
    across, down = (  # by coordinate: on CPUs in a fifth of the time of pairs of them
        ops.minimum(boxes[..., end], others[..., end]) - ops.maximum(boxes[..., start], others[..., start])
        for start, end in ((0, 2), (1, 3))
    )
    return ops.maximum(across, 0) * ops.maximum(down, 0)


def _iou(boxes, others):
    intersection = _intersection(boxes, others)
    return intersection / ops.maximum(area(boxes) + area(others) - intersection, SMALLEST)


def _sides_of_hull(boxes, others):
    """Sides `(..., 2)` of the smallest boxes that contain both."""
    return ops.maximum(boxes[..., 2:], others[..., 2:]) - ops.minimum(boxes[..., :2], others[..., :2])


def _centres_and_sides(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def _angle(boxes):
    """Angle between a box's diagonal and the vertical, in radians."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return ops.arctan2(sides[..., 0], ops.maximum(sides[..., 1], SMALLEST))
