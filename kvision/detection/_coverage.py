"""Which anchors or cells learn which objects, to look at before a training."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kvision.detection._family import raw
from kvision.detection._faster_rcnn_loss import POSITIVE_ANCHOR
from kvision.detection._matching import best_objects, overlaps_of
from kvision.detection._simota import assign
from kvision.detection._ssd_loss import POSITIVE_OVERLAP, match
from kvision.detection._yolo_v1 import DecodeGrid, grid_of
from kvision.detection._yolo_v1_loss import cells_of
from kvision.keras_internals import inputs_of
from kvision.layers import DecodeCells, decode_cells, grid_cells
from kvision.networks import image_shape

TAKEN = "share a cell with another object, which alone is learned there"
FAR = "overlap no anchor by {} or more: only the nearest one learns them"


class Assigned(NamedTuple):
    """Anchors, or cells, and the objects that they learn.

    Attributes:
        places: of the anchors or cells, xyxy in pixels, float32 `(batch, N, 4)`.
        chosen: whether a place learns an object, booleans `(batch, most, N)`.
        missed: objects that no place fits, booleans `(batch, most)`.
        reason: what is wrong with these, the end of a sentence.
    """

    places: np.ndarray
    chosen: np.ndarray
    missed: np.ndarray
    reason: str


def assigned(model: keras.Model, images, boxes, classes) -> Assigned | None:
    """The anchors or cells by which a detector learns objects.

    Args:
        model: a detector of kvision, with its top and a fixed image size.
        images: `(batch, height, width, channels)`, pixels in [0, 255].
        boxes: float32 `(batch, most, 4)`, xyxy in pixels.
        classes: int32 `(batch, most)`; -1 where there is no object.

    Returns:
        The assignment; None for a detector that has neither anchors nor cells. YOLOX' depends on what its
        weights predict now.
    """
    decode, (height, width) = model.get_layer("decode"), image_shape(model)[1:3]
    boxes, classes = ops.convert_to_tensor(boxes, "float32"), ops.convert_to_tensor(classes, "int32")
    real = np.asarray(classes) >= 0
    if isinstance(decode, DecodeGrid):
        grid = grid_of(raw(model).output["classes"].shape[1])
        sides = np.array([width, height, width, height], "float32")
        cells, learned = cells_of(boxes / sides, classes, grid)
        chosen = ops.logical_and(ops.equal(cells[..., None], ops.arange(grid**2)), learned[..., None])
        y, x = np.divmod(np.arange(grid**2), grid)
        places = np.stack([x, y, x + 1, y + 1], -1) * sides / grid
        return _assigned(places, chosen, real & ~np.asarray(learned), TAKEN)
    if isinstance(decode, DecodeCells):
        outputs = raw(model)(images, training=False)
        outputs = {key: ops.cast(value, "float32") for key, value in outputs.items()}
        corners, sides = grid_cells(height, width, decode.strides)
        chosen, _ = assign(
            decode_cells(outputs["boxes"], corners, sides),
            ops.sigmoid(outputs["classes"]) * ops.sigmoid(outputs["objectness"])[..., None],
            boxes,
            classes,
            centres=corners + sides / 2,
            strides=sides[:, 0],
        )
        missed = real & ~np.asarray(ops.any(chosen, -1))
        return _assigned(np.concatenate([corners, corners + sides], -1), chosen, missed, TAKEN)
    layer = next((layer for layer in model.layers if layer.name == "anchors"), None)
    if layer is None:
        return None
    # Anchors depend on sizes alone, so the network need not be run.
    *maps, image = (np.zeros((1, *tensor.shape[1:3], 1), "float32") for tensor in inputs_of(layer, 0))
    anchors = layer(maps, image)
    overlaps = overlaps_of(boxes, classes, ops.broadcast_to(anchors, (len(real), *anchors.shape[1:])))
    most = ops.max(overlaps, 2, keepdims=True)
    if "proposals" in raw(model).output:
        best, objects = best_objects(overlaps)
        favoured = ops.any(ops.logical_and(overlaps == most, most > 0), 1)
        positive, threshold = ops.logical_or(best >= POSITIVE_ANCHOR, favoured), POSITIVE_ANCHOR
    else:
        (objects, positive), threshold = match(overlaps), POSITIVE_OVERLAP
    own = ops.equal(objects[:, None], ops.arange(real.shape[1], dtype="int32")[:, None])
    chosen = ops.logical_and(own, positive[:, None])
    missed = real & (np.asarray(most)[..., 0] < threshold)
    return _assigned(np.asarray(anchors)[0], chosen, missed, FAR.format(threshold))


def _assigned(places, chosen, missed, reason):
    chosen = np.asarray(chosen)
    return Assigned(np.broadcast_to(places, (len(chosen), *np.shape(places))), chosen, missed, reason)
