"""Boxes that are predicted for each cell of an image's grids (Ge et al. 2021, https://arxiv.org/abs/2107.08430)."""

import keras
from keras import ops

LARGEST = 10.0  # logarithm of half a million pixels at stride 32: infinite boxes would overlap by NaN


def grid_cells(height, width, strides):
    """The cells of an image's grids: grid by grid, row by row, from left to right.

    Args:
        height, width: of the image in pixels.
        strides: height and width of the cells of each grid.

    Returns:
        Left and top of each cell in pixels, float32 `(cells, 2)`, and its stride, float32 `(cells, 1)`.
    """
    corners, sides = [], []
    for stride in strides:
        rows, columns = (ops.arange(side // stride, dtype="float32") * stride for side in (height, width))
        y, x = ops.meshgrid(rows, columns, indexing="ij")
        corners.append(ops.stack([ops.reshape(x, (-1,)), ops.reshape(y, (-1,))], -1))
        sides.append(ops.full_like(corners[-1][:, :1], stride))
    return ops.concatenate(corners), ops.concatenate(sides)


def decode_cells(boxes, corners, strides):
    """Boxes, xyxy in pixels, of what a network predicts for each cell.

    Args:
        boxes: `(..., cells, 4)`: the centre from the cell's corner, and the logarithms of width and height,
            in strides.
        corners, strides: of `grid_cells`.
    """
    centres = corners + boxes[..., :2] * strides
    half = ops.exp(ops.minimum(boxes[..., 2:], LARGEST)) * strides / 2
    return ops.concatenate([centres - half, centres + half], -1)


@keras.saving.register_keras_serializable("kvision")
class DecodeCells(keras.layers.Layer):
    """Boxes and scores of YOLOX's raw outputs.

    Input: a dict of "boxes" `(batch, cells, 4)` as `decode_cells` takes them, "objectness" `(batch, cells)`
    and "classes" `(batch, cells, classes)`, both logits, and the image `(batch, height, width, channels)`.

    Output: a dict of "boxes", float32 `(batch, cells, 4)`, xyxy in pixels, and "scores", float32
    `(batch, cells, classes)`, the products of both probabilities.

    Args:
        strides: height and width of the cells of each grid.
    """

    def __init__(self, strides=(8, 16, 32), **keywords):
        super().__init__(autocast=False, **keywords)
        self.strides = tuple(strides)

    def call(self, raw, image):
        raw = {key: ops.cast(value, "float32") for key, value in raw.items()}
        height, width = ops.shape(image)[1:3]
        cells = grid_cells(height, width, self.strides)
        scores = ops.sigmoid(raw["classes"]) * ops.sigmoid(raw["objectness"])[..., None]
        return {"boxes": decode_cells(raw["boxes"], *cells), "scores": scores}

    def compute_output_spec(self, raw, image):
        return {
            "boxes": keras.KerasTensor(raw["boxes"].shape, "float32"),
            "scores": keras.KerasTensor(raw["classes"].shape, "float32"),
        }

    def get_config(self):
        return super().get_config() | {"strides": self.strides}


@keras.saving.register_keras_serializable("kvision")
class JoinMaps(keras.layers.Layer):
    """The places of several maps in one axis: map by map, row by row, from left to right.

    Input: a list of `(batch, height, width, channels)`. Output: `(batch, places, channels)`.
    """

    def call(self, maps):
        rows = []
        for x in maps:
            _, height, width, channels = ops.shape(x)
            rows.append(ops.reshape(x, (-1, height * width, channels)))
        return ops.concatenate(rows, 1)
