"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381).

timm's checkpoints `mobilenetv2_*` are the network with `padding="symmetric", norm_epsilon=1e-5`.
"""

from dataclasses import dataclass

from kvision.blocks import (
    BlockContext,
    Row,
    batch_norm_of,
    head,
    inverted_residual,
    make_divisible,
    stages,
    stem,
)
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Padding, Preprocess, column


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        width_multiplier: factor on the filters of every layer, but for the last where it is below 1.
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
        drop_path_rate: rate of stochastic depth; it grows linearly, so that block i of n, counted from 0, has
            drop_path_rate * i / n where it has a residual.
    """

    width_multiplier: float = 1.0
    padding: Padding = column("same", same_shapes=True)
    dropout_rate: float = 0.2
    drop_path_rate: float = column(0.0, free=True)
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.999
    preprocess: Preprocess = PLUS_MINUS_ONE


VARIANTS = {  # trainable parameters: timm and keras.applications
    "mobilenet_v2": MobileNetV2Variant(params=3_504_872),
}

# Table 2: block, kernel, strides, expand ratio t, filters c, depth n
ROWS = (
    Row(inverted_residual, 3, 1, 1, 16, 1),
    Row(inverted_residual, 3, 2, 6, 24, 2),
    Row(inverted_residual, 3, 2, 6, 32, 3),
    Row(inverted_residual, 3, 2, 6, 64, 4),
    Row(inverted_residual, 3, 1, 6, 96, 3),
    Row(inverted_residual, 3, 2, 6, 160, 3),
    Row(inverted_residual, 3, 1, 6, 320, 1),
)


def trunk(x, v: MobileNetV2Variant):
    context = BlockContext("relu6", batch_norm_of(v), v.padding)
    x = stem(x, filters=make_divisible(32 * v.width_multiplier), context=context)
    x = stages(
        x,
        ROWS,
        context=context,
        scale=lambda filters: make_divisible(filters * v.width_multiplier),
        drop_path_rate=v.drop_path_rate,
    )
    return head(x, filters=make_divisible(1280 * max(1.0, v.width_multiplier)), context=context)


FAMILY = Family(trunk, VARIANTS)
mobilenet_v2 = FAMILY.builder("mobilenet_v2")
