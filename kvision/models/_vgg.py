"""VGG (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556), also with batch normalisation."""

from dataclasses import dataclass

from kvision.blocks import ConvRow, batch_norm_of, classic_stages, hidden_layers
from kvision.models._family import Family
from kvision.spec import BatchNormVariant


@dataclass(frozen=True, kw_only=True)
class VGGVariant(BatchNormVariant):
    """A row of the table.

    Attributes:
        depths: convolutions a stage.
        norm: whether batch normalisation follows each convolution; the norm's columns have no effect else.
        filters: of each stage.
        hidden_filters: units of the two hidden dense layers.
    """

    depths: tuple[int, ...]
    norm: bool = False
    filters: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden_filters: int = 4096
    dropout_rate: float = 0.5


VARIANTS = {  # Table 1, columns A, B, D and E; trainable parameters: timm
    "vgg11": VGGVariant(depths=(1, 1, 2, 2, 2), params=132_863_336),
    "vgg13": VGGVariant(depths=(2, 2, 2, 2, 2), params=133_047_848),
    "vgg16": VGGVariant(depths=(2, 2, 3, 3, 3), params=138_357_544),
    "vgg19": VGGVariant(depths=(2, 2, 4, 4, 4), params=143_667_240),
    "vgg11_bn": VGGVariant(depths=(1, 1, 2, 2, 2), norm=True, params=132_868_840),
    "vgg13_bn": VGGVariant(depths=(2, 2, 2, 2, 2), norm=True, params=133_053_736),
    "vgg16_bn": VGGVariant(depths=(2, 2, 3, 3, 3), norm=True, params=138_365_992),
    "vgg19_bn": VGGVariant(depths=(2, 2, 4, 4, 4), norm=True, params=143_678_248),
}


def trunk(x, v: VGGVariant):
    rows = []
    for filters, depth in zip(v.filters, v.depths, strict=True):
        rows += [ConvRow(filters)] * (depth - 1) + [ConvRow(filters, pool=(2, 2))]
    norm = batch_norm_of(v) if v.norm else None
    return classic_stages(x, rows, norm=norm)


def top(x, v: VGGVariant):
    return hidden_layers(
        x,
        filters=v.hidden_filters,
        map_size=7,
        dropout_rate=v.dropout_rate,
        names=("pre_logits.fc1", "pre_logits.fc2"),
    )


FAMILY = Family(trunk, VARIANTS, top, classifier="head.fc")
vgg11 = FAMILY.builder("vgg11")
vgg13 = FAMILY.builder("vgg13")
vgg16 = FAMILY.builder("vgg16")
vgg19 = FAMILY.builder("vgg19")
vgg11_bn = FAMILY.builder("vgg11_bn")
vgg13_bn = FAMILY.builder("vgg13_bn")
vgg16_bn = FAMILY.builder("vgg16_bn")
vgg19_bn = FAMILY.builder("vgg19_bn")
