"""Crops of regions in one size, whatever their shape (Girshick et al. 2014, section 2.1 and appendix A)."""

import keras
import numpy as np
from keras import ops

from kvision.layers.roi_align import weighted_places


@keras.saving.register_keras_serializable("kvision")
class RoIWarp(keras.layers.Layer):
    """Regions of images with some of their surroundings, warped to squares by bilinear interpolation.

    The region itself fills the crop but for a frame of `context` pixels. Outside of the image there is 0,
    which is the mean where the image is normalised. Where a region is larger than its crop, pixels between
    the samples are passed over, as in R-CNN's code.

    Input: images `(batch, height, width, channels)`, and boxes `(batch, regions, 4)` in pixels, xyxy. Output:
    `(batch, regions, size, size, channels)`.

    Args:
        size: height and width of a crop.
        context: width of the frame in pixels of the crop; less than half of `size`.
    """

    def __init__(self, size=227, context=16, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.size = size
        self.context = context

    def call(self, x, boxes):
        boxes = ops.cast(boxes, "float32")
        height, width = ops.shape(x)[1:3]
        rows = self._weights(boxes[..., 1], boxes[..., 3], height)
        columns = self._weights(boxes[..., 0], boxes[..., 2], width)
        return weighted_places(x, rows, columns)

    def _weights(self, start, end, count):
        """Weights `(batch, regions, size, count)` of the rows or columns of an image."""
        samples = np.arange(self.size, dtype="float32") + 0.5 - self.context
        step = (end - start) / (self.size - 2 * self.context)  # between samples, in pixels of the image
        positions = start[..., None] + step[..., None] * samples - 0.5
        places = ops.cast(ops.arange(count), "float32")
        return ops.maximum(1 - ops.abs(positions[..., None] - places), 0.0)

    def compute_output_shape(self, x_shape, boxes_shape):
        return (*boxes_shape[:2], self.size, self.size, x_shape[-1])

    def compute_output_spec(self, x, boxes):
        return keras.KerasTensor(self.compute_output_shape(x.shape, boxes.shape), x.dtype)

    def get_config(self):
        return super().get_config() | {"size": self.size, "context": self.context}
