"""Lite R-ASPP on MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244), as in torchvision."""

from dataclasses import dataclass

from kvision._backbones import BackboneRow
from kvision.blocks import lite_head, resize_to_image
from kvision.models._mobilenet_v3 import LARGE, MobileNetV3Variant
from kvision.segmentation._family import STRIDE_8, SegmentationFamily
from kvision.spec import IMAGENET, Padding, Preprocess


@dataclass(frozen=True, kw_only=True)
class LRASPPVariant(BackboneRow, MobileNetV3Variant):
    """A row of MobileNetV3's table, and what follows.

    Attributes:
        inner_filters: of the head.
    """

    inner_filters: int = 128
    input_size: int = 520
    num_classes: int = 21
    output_stride: int = 16
    padding: Padding = "symmetric"
    dropout_rate: float = 0.0
    norm_momentum: float = 0.99
    preprocess: Preprocess = IMAGENET


VARIANTS = {  # trainable parameters: torchvision
    "lraspp_mobilenet_v3_large": LRASPPVariant(
        backbone="mobilenet_v3_large", rows=LARGE, head_filters=1280, params=3_221_538
    ),
}


def decode(network, v: LRASPPVariant, num_classes):
    x = lite_head(
        network.output,
        network.get_layer(STRIDE_8).output,
        filters=v.inner_filters,
        num_classes=num_classes,
        name="classifier",
    )
    return {"predictions": resize_to_image(x, network.input, name="classifier")}


FAMILY = SegmentationFamily(
    variants=VARIANTS, module=__name__, classifier="classifier.low_classifier", decoder=decode
)
lraspp_mobilenet_v3_large = FAMILY.builder("lraspp_mobilenet_v3_large")
