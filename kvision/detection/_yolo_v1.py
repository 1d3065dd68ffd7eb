"""YOLO (Redmon et al. 2016, https://arxiv.org/abs/1506.02640), and Fast YOLO.

The paper says of Fast YOLO only that it has nine convolutions of fewer filters; theirs, and its layers of 256
and 4096 units, are those of the authors' first `yolo-tiny`. The one dense layer that the networks end in is
three here, of classes, confidences and boxes, so that weights fit other classes. The authors pretrain the
first 20 convolutions on ImageNet, where there are none of these weights.
"""

from dataclasses import dataclass

import keras
from keras import ops

from kvision.blocks import ConvRow, batch_norm_of, classic_stages
from kvision.detection._family import DetectionFamily, DetectionRow
from kvision.errors import UserError
from kvision.layers import NonMaxSuppression
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Preprocess, column

SLOPE = 0.1  # of leaky ReLU (equation 2)
POOL = (2, 2)


@dataclass(frozen=True, kw_only=True)
class YOLOv1Variant(DetectionRow, BatchNormVariant):
    """A row of the table.

    Attributes:
        rows: convolutions.
        hidden_filters: units of the dense layers behind them; dropout follows the last.
        grid: cells along a side of the image, S in the paper.
        boxes_per_cell: B in the paper.
        width_multiplier: of the convolutions' filters.
        norm: whether batch normalisation follows each convolution, which the paper lacks.
        candidates: pairs of box and class, the best of which are compared.
    """

    rows: tuple[ConvRow, ...]
    hidden_filters: tuple[int, ...]
    grid: int = 7
    boxes_per_cell: int = 2
    width_multiplier: float = 1.0
    norm: bool = False
    candidates: int = column(1000, free=True)
    score_threshold: float = 0.001  # of the authors' evaluation
    input_size: int = 448
    num_classes: int = 20
    preprocess: Preprocess = PLUS_MINUS_ONE
    dropout_rate: float = 0.5


def _pairs(narrow, wide, count):
    return (ConvRow(narrow, 1), ConvRow(wide)) * count


ROWS = (  # Figure 3
    ConvRow(64, 7, 2, 3, pool=POOL),
    ConvRow(192, pool=POOL),
    *_pairs(128, 256, 1), ConvRow(256, 1), ConvRow(512, pool=POOL),
    *_pairs(256, 512, 4), ConvRow(512, 1), ConvRow(1024, pool=POOL),
    *_pairs(512, 1024, 2), ConvRow(1024), ConvRow(1024, 3, 2, 1),
    ConvRow(1024), ConvRow(1024),
)  # fmt: skip
FAST_ROWS = (
    *(ConvRow(filters, pool=POOL) for filters in (16, 32, 64, 128, 256, 512)),
    *(ConvRow(1024),) * 3,
)
VARIANTS = {  # trainable parameters: sums over Figure 3's layers, and over those of `yolo-tiny`
    "yolo_v1": YOLOv1Variant(rows=ROWS, hidden_filters=(4096,), params=271_703_550),
    "yolo_v1_fast": YOLOv1Variant(rows=FAST_ROWS, hidden_filters=(256, 4096), params=45_089_374),
}


def leaky(x, *, name):
    """The paper's activation."""
    return keras.layers.LeakyReLU(SLOPE, name=name)(x)


def trunk(x, v: YOLOv1Variant):
    rows = [row._replace(filters=max(1, round(row.filters * v.width_multiplier))) for row in v.rows]
    return classic_stages(x, rows, norm=batch_norm_of(v) if v.norm else None, activation=leaky)


def detect(network, v: YOLOv1Variant, num_classes):
    """The dense layers, decoding and suppression."""
    if None in network.output.shape[1:]:
        raise UserError("The dense layers need a fixed image size: give `input_shape`.")
    x = keras.layers.Flatten(name="flatten")(network.output)
    for place, units in enumerate(v.hidden_filters):
        x = leaky(keras.layers.Dense(units, name=f"connected.{place}")(x), name=f"connected.{place}.act")
    x = keras.layers.Dropout(v.dropout_rate, name="dropout")(x)
    cells, boxes = v.grid**2, v.boxes_per_cell
    shapes = {"classes": (num_classes,), "confidences": (boxes,), "boxes": (boxes, 4)}
    outputs = {}
    for key, shape in shapes.items():
        units = cells * shape[0] * (4 if key == "boxes" else 1)
        dense = keras.layers.Dense(units, name=f"connected.{key}")(x)
        outputs[key] = keras.layers.Reshape((cells, *shape), name=key)(dense)
    decoded = DecodeGrid(name="decode")(outputs, network.input)
    suppression = NonMaxSuppression(
        v.max_detections, v.candidates, v.score_threshold, v.iou_threshold, name="detections"
    )
    return suppression(decoded["boxes"], decoded["scores"])


def grid_of(cells: int) -> int:
    """The cells along a side of the image."""
    return round(cells**0.5)


def decode_grid(boxes):
    """Boxes, xyxy as shares of the image, from what the network predicts.

    Args:
        boxes: `(batch, cells, B, 4)`: the centre from the cell's corner, as shares of the cell, and the roots
            of width and height, as shares of the image; cell by cell, row by row.
    """
    grid = grid_of(boxes.shape[1])
    cells = ops.arange(grid**2, dtype="int32")
    corners = ops.cast(ops.stack([cells % grid, cells // grid], -1), "float32")
    centres = (corners[:, None] + boxes[..., :2]) / grid
    half = ops.square(boxes[..., 2:]) / 2
    return ops.concatenate([centres - half, centres + half], -1)


@keras.saving.register_keras_serializable("kvision")
class DecodeGrid(keras.layers.Layer):
    """Boxes and scores of YOLO's raw outputs.

    Input: a dict of "boxes" `(batch, cells, B, 4)`, see `decode_grid`; "confidences" `(batch, cells, B)` and
    "classes" `(batch, cells, classes)`, numbers that training pulls into [0, 1] and that are cut there; and
    the image.

    Output: a dict of "boxes", float32 `(batch, cells * B, 4)`, xyxy in pixels, and "scores", float32
    `(batch, cells * B, classes)`, the product of confidence and class.
    """

    def __init__(self, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy

    def call(self, raw, image):
        raw = {key: ops.cast(value, "float32") for key, value in raw.items()}
        height, width = image.shape[1:3]
        sides = ops.convert_to_tensor([width, height, width, height], "float32")
        confidences, classes = (ops.clip(raw[key], 0.0, 1.0) for key in ("confidences", "classes"))
        scores = confidences[..., None] * classes[:, :, None]
        return {
            "boxes": ops.reshape(decode_grid(raw["boxes"]) * sides, (-1, *self._rows(raw, 4))),
            "scores": ops.reshape(scores, (-1, *self._rows(raw, classes.shape[-1]))),
        }

    def _rows(self, raw, width):
        cells, boxes = raw["confidences"].shape[1:]
        return cells * boxes, width

    def compute_output_spec(self, raw, image):
        batch, _, classes = raw["classes"].shape
        return {
            "boxes": keras.KerasTensor((batch, *self._rows(raw, 4)), "float32"),
            "scores": keras.KerasTensor((batch, *self._rows(raw, classes)), "float32"),
        }


class YOLOv1Family(DetectionFamily):
    """Networks whose classifier answers for each cell of the grid."""

    def _num_classes(self, weights):
        outputs = DetectionFamily._num_classes(self, weights)
        return outputs and outputs // YOLOv1Variant.grid**2


FAMILY = YOLOv1Family(
    trunk=trunk, variants=VARIANTS, decoder=detect, classifier="connected.classes", min_size=64
)
yolo_v1 = FAMILY.builder("yolo_v1")
yolo_v1_fast = FAMILY.builder("yolo_v1_fast")
