"""EfficientNetV2 (Tan and Le 2021, https://arxiv.org/abs/2104.00298).

B0 to B3 are the base network of Google's released code, compound-scaled; there filters are rounded to the
nearest multiple of 8 without the lower bound of the other networks.
"""

import math
from dataclasses import dataclass

from kvision.blocks import (
    BlockContext,
    Row,
    batch_norm_of,
    fused_inverted_residual,
    head,
    inverted_residual,
    make_divisible,
    mbconv_squeeze,
    stages,
    stem,
)
from kvision.models._family import Family
from kvision.spec import IMAGENET, PLUS_MINUS_ONE, BatchNormVariant, Padding, column

fused = fused_inverted_residual
mbconv = inverted_residual

# block, kernel, strides, expand ratio, filters, depth
BASE = (  # effnetv2_configs.py of google/automl: v2_base_block
    Row(fused, 3, 1, 1, 16, 1),
    Row(fused, 3, 2, 4, 32, 2),
    Row(fused, 3, 2, 4, 48, 2),
    Row(mbconv, 3, 2, 4, 96, 3),
    Row(mbconv, 3, 1, 6, 112, 5),
    Row(mbconv, 3, 2, 6, 192, 8),
)
SMALL = (  # Table 4
    Row(fused, 3, 1, 1, 24, 2),
    Row(fused, 3, 2, 4, 48, 4),
    Row(fused, 3, 2, 4, 64, 4),
    Row(mbconv, 3, 2, 4, 128, 6),
    Row(mbconv, 3, 1, 6, 160, 9),
    Row(mbconv, 3, 2, 6, 256, 15),
)
MEDIUM = (  # v2_m_block
    Row(fused, 3, 1, 1, 24, 3),
    Row(fused, 3, 2, 4, 48, 5),
    Row(fused, 3, 2, 4, 80, 5),
    Row(mbconv, 3, 2, 4, 160, 7),
    Row(mbconv, 3, 1, 6, 176, 14),
    Row(mbconv, 3, 2, 6, 304, 18),
    Row(mbconv, 3, 1, 6, 512, 5),
)
LARGE = (  # v2_l_block
    Row(fused, 3, 1, 1, 32, 4),
    Row(fused, 3, 2, 4, 64, 7),
    Row(fused, 3, 2, 4, 96, 7),
    Row(mbconv, 3, 2, 4, 192, 10),
    Row(mbconv, 3, 1, 6, 224, 19),
    Row(mbconv, 3, 2, 6, 384, 25),
    Row(mbconv, 3, 1, 6, 640, 7),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetV2Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        rows: the stages.
        stem_filters: of the first convolution.
        width_multiplier: factor on the filters of every layer.
        depth_multiplier: factor on the blocks of every stage, rounded up.
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
        drop_path_rate: rate of stochastic depth; it grows linearly, so that block i of n, counted from 0, has
            drop_path_rate * i / n where it has a residual.
    """

    rows: tuple[Row, ...]
    stem_filters: int
    width_multiplier: float = 1.0
    depth_multiplier: float = 1.0
    padding: Padding = column("same", same_shapes=True)
    drop_path_rate: float = column(0.2, free=True)
    norm_epsilon: float = 1e-3


def row(rows, stem, width, depth, size, dropout, params, preprocess=IMAGENET) -> EfficientNetV2Variant:
    return EfficientNetV2Variant(
        rows=rows,
        stem_filters=stem,
        width_multiplier=width,
        depth_multiplier=depth,
        input_size=size,
        dropout_rate=dropout,
        params=params,
        preprocess=preprocess,
    )


VARIANTS = {  # coefficients, sizes of evaluation, dropout: effnetv2_configs.py; trainable parameters: timm
    "efficientnet_v2_b0": row(BASE, 32, 1.0, 1.0, 224, 0.2, 7_139_704),
    "efficientnet_v2_b1": row(BASE, 32, 1.0, 1.1, 240, 0.2, 8_141_052),
    "efficientnet_v2_b2": row(BASE, 32, 1.1, 1.2, 260, 0.3, 10_096_086),
    "efficientnet_v2_b3": row(BASE, 32, 1.2, 1.4, 300, 0.3, 14_358_406),
    "efficientnet_v2_s": row(SMALL, 24, 1.0, 1.0, 384, 0.2, 21_458_488, PLUS_MINUS_ONE),
    "efficientnet_v2_m": row(MEDIUM, 24, 1.0, 1.0, 480, 0.3, 54_139_356, PLUS_MINUS_ONE),
    "efficientnet_v2_l": row(LARGE, 32, 1.0, 1.0, 480, 0.4, 118_515_272, PLUS_MINUS_ONE),
}


def trunk(x, v: EfficientNetV2Variant):
    context = BlockContext("swish", batch_norm_of(v), v.padding, mbconv_squeeze)

    def scale(filters):
        return make_divisible(filters * v.width_multiplier, least=0)

    x = stem(x, filters=scale(v.stem_filters), context=context)
    x = stages(
        x,
        [row._replace(depth=math.ceil(row.depth * v.depth_multiplier)) for row in v.rows],
        context=context,
        scale=scale,
        drop_path_rate=v.drop_path_rate,
    )
    return head(x, filters=scale(1280), context=context)


FAMILY = Family(trunk, VARIANTS)
efficientnet_v2_b0 = FAMILY.builder("efficientnet_v2_b0")
efficientnet_v2_b1 = FAMILY.builder("efficientnet_v2_b1")
efficientnet_v2_b2 = FAMILY.builder("efficientnet_v2_b2")
efficientnet_v2_b3 = FAMILY.builder("efficientnet_v2_b3")
efficientnet_v2_s = FAMILY.builder("efficientnet_v2_s")
efficientnet_v2_m = FAMILY.builder("efficientnet_v2_m")
efficientnet_v2_l = FAMILY.builder("efficientnet_v2_l")
