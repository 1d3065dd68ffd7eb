"""VGG-F, VGG-M and VGG-S, the CNN-F, CNN-M and CNN-S of Chatfield et al. 2014 (https://arxiv.org/abs/1405.3531).

Pooling counts windows that hang over, as in Caffe. VGG-S has the paper's padding of 1 in its second
convolution; the released Caffe model has none there.
"""

from kvision.blocks import ConvRow, classic_stages, hidden_layers
from kvision.models._alexnet import AlexNetVariant
from kvision.models._family import Family

# Table 1: filters, kernel, strides, padding, groups, response normalisation, pooling's size and strides
F = (
    ConvRow(64, 11, 4, 0, 1, True, (3, 2)),
    ConvRow(256, 5, 1, 2, 1, True, (3, 2)),
    ConvRow(256, 3, 1, 1),
    ConvRow(256, 3, 1, 1),
    ConvRow(256, 3, 1, 1, 1, False, (3, 2)),
)
M = (
    ConvRow(96, 7, 2, 0, 1, True, (3, 2)),
    ConvRow(256, 5, 2, 1, 1, True, (3, 2)),
    ConvRow(512, 3, 1, 1),
    ConvRow(512, 3, 1, 1),
    ConvRow(512, 3, 1, 1, 1, False, (3, 2)),
)
S = (
    ConvRow(96, 7, 2, 0, 1, True, (3, 3)),
    ConvRow(256, 5, 1, 1, 1, False, (2, 2)),
    ConvRow(512, 3, 1, 1),
    ConvRow(512, 3, 1, 1),
    ConvRow(512, 3, 1, 1, 1, False, (3, 3)),
)


VARIANTS = {  # trainable parameters: the sums over the paper's layers
    "vgg_f": AlexNetVariant(rows=F, params=60_834_536),
    "vgg_m": AlexNetVariant(rows=M, params=102_908_520),
    "vgg_s": AlexNetVariant(rows=S, params=102_908_520),
}


def trunk(x, v: AlexNetVariant):
    return classic_stages(x, v.rows, pool_padding="ceil")


def top(x, v: AlexNetVariant):
    return hidden_layers(
        x,
        filters=v.hidden_filters,
        map_size=6,
        dropout_rate=v.dropout_rate,
        names=("pre_logits.fc1", "pre_logits.fc2"),
    )


FAMILY = Family(trunk, VARIANTS, top, classifier="head.fc", min_size=64)
vgg_f = FAMILY.builder("vgg_f")
vgg_m = FAMILY.builder("vgg_m")
vgg_s = FAMILY.builder("vgg_s")
