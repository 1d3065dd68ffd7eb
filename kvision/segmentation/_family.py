"""The parts that all segmentation networks share: their keywords and names."""

import dataclasses
from typing import ClassVar

from kvision._backbones import BackboneFamily

STRIDE_8 = "backbone.4.block.3.1"  # MobileNetV3's first map of stride 8: torchvision's choice

DOC = """Builds {name}: {params:,} trainable parameters, {size} x {size} pixels as published.

{summary}

Args:
    include_top: whether to end in logits of each pixel.
    weights: None for fresh weights; a tag of `kvision.list_weights("{name}.*")`; or a source of
        `kvision.weights.load`. They are adapted to other classes and channels, which is logged; the
        classifier is only fresh where `num_classes` is given.
    input_shape: `(height, width, channels)`; height and width may be None for any size.
    pooling: without a top, None for the feature map, "avg" or "max" for a vector.
    num_classes: channels of the output; by default those of the weights.
    classifier_activation: a Keras activation by name; None for logits.
    preprocess: a `kvision.Preprocess`, where the normalisation is not that of the weights or the network.
    name: of the model.
    allow_nonfinite: whether weights may be NaN or infinity.
    backbone: the network that it stands on, where that can be chosen: the name of a classifier, or one of
        kvision's networks with its weights, which are copied; None for the row's.
    backbone_weights: of the network that it stands on, as that one's builder takes them.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` from pixels in [0, 255], `(batch, height, width, channels)`, to float32
    `(batch, height, width, num_classes)`; with `auxiliary`, to a dict of these, "predictions" and
    "aux_classifier"; without a top, to the feature map or its pooled vector.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit, or weights that are NaN, of another network or other columns.
    OSError: weights that are not there or cannot be downloaded.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationFamily(BackboneFamily):
    """A table of networks that answer for each pixel."""

    doc: ClassVar[str] = DOC

    task: str = "segmentation"
