"""DeepLabv3 (Chen et al. 2017, https://arxiv.org/abs/1706.05587), as in torchvision.

On ResNet at output stride 8 the pyramid's rates are those of the paper's output stride 8, twice those of 16;
on MobileNetV3 at output stride 16 torchvision keeps them.
"""

from dataclasses import dataclass

from kvision._backbones import BackboneRow
from kvision.blocks import atrous_pyramid, conv, conv_norm_act, fcn_head, head_norm, resize_to_image
from kvision.models._mobilenet_v3 import LARGE, MobileNetV3Variant
from kvision.models._resnet import ResNetVariant
from kvision.segmentation._family import STRIDE_8, SegmentationFamily
from kvision.spec import IMAGENET, Padding, Preprocess, column


@dataclass(frozen=True, kw_only=True)
class DeepLabRow(BackboneRow):
    """Columns of both tables.

    Attributes:
        auxiliary: whether a second head, on a map of stride 8, is there for training.
        pyramid_filters: of the pyramid and the convolution after it.
        rates: dilations of the pyramid.
        dropout_rate: behind the pyramid.
    """

    auxiliary: bool = column(False, free=True)
    pyramid_filters: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    input_size: int = 520
    num_classes: int = 21
    dropout_rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class DeepLabResNetVariant(DeepLabRow, ResNetVariant):
    """A row of ResNet's table, with DeepLab's columns."""

    output_stride: int = 8


@dataclass(frozen=True, kw_only=True)
class DeepLabMobileNetVariant(DeepLabRow, MobileNetV3Variant):
    """A row of MobileNetV3's table, with DeepLab's columns."""

    output_stride: int = 16
    padding: Padding = "symmetric"
    norm_momentum: float = 0.99
    preprocess: Preprocess = IMAGENET


RESNETS = {  # trainable parameters: torchvision, less its auxiliary head's 2,365,205
    "deeplabv3_resnet50": DeepLabResNetVariant(
        backbone="resnet50", depths=(3, 4, 6, 3), params=42_004_074 - 2_365_205
    ),
}
MOBILENETS = {  # trainable parameters: torchvision, less its auxiliary head's 3,851
    "deeplabv3_mobilenet_v3_large": DeepLabMobileNetVariant(
        backbone="mobilenet_v3_large", rows=LARGE, head_filters=1280, params=11_029_328 - 3_851
    ),
}


def decode(network, v: DeepLabRow, num_classes):
    x = atrous_pyramid(
        network.output,
        filters=v.pyramid_filters,
        rates=v.rates,
        dropout_rate=v.dropout_rate,
        name="classifier.0",
    )
    x = conv_norm_act(
        x,
        filters=v.pyramid_filters,
        kernel_size=3,
        norm=head_norm,
        activation="relu",
        name="classifier.1",
        norm_name="classifier.2",
    )
    x = conv(x, filters=num_classes, use_bias=True, name="classifier.4")
    outputs = {"predictions": resize_to_image(x, network.input, name="classifier")}
    if v.auxiliary:
        layer = "c4" if isinstance(v, DeepLabResNetVariant) else STRIDE_8
        x = fcn_head(network.get_layer(layer).output, num_classes=num_classes, name="aux_classifier")
        outputs["aux_classifier"] = resize_to_image(x, network.input, name="aux_classifier")
    return outputs


FAMILY = SegmentationFamily(variants=RESNETS, module=__name__, classifier="classifier.4", decoder=decode)
MOBILENET_FAMILY = SegmentationFamily(
    variants=MOBILENETS, module=__name__, classifier="classifier.4", decoder=decode
)
deeplabv3_resnet50 = FAMILY.builder("deeplabv3_resnet50")
deeplabv3_mobilenet_v3_large = MOBILENET_FAMILY.builder("deeplabv3_mobilenet_v3_large")
