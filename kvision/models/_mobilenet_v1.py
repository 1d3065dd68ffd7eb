"""MobileNet (Howard et al. 2017, https://arxiv.org/abs/1704.04861).

ReLU6 and batch normalisation follow both convolutions, as in the released code. timm's checkpoints
`mobilenetv1_*` are the network with `padding="symmetric", norm_epsilon=1e-5`.
"""

from dataclasses import dataclass

from kvision.blocks import (
    BlockContext,
    Row,
    batch_norm_of,
    conv_norm_act,
    depthwise_conv,
    make_divisible,
    stages,
    stem,
)
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Padding, Preprocess, column


@dataclass(frozen=True, kw_only=True)
class MobileNetV1Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        width_multiplier: the paper's alpha, on the filters of every layer.
        resolution_multiplier: the paper's rho, on the default input size (to a multiple of 32).
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
    """

    width_multiplier: float = 1.0
    resolution_multiplier: float = column(1.0, free=True)
    padding: Padding = column("same", same_shapes=True)
    dropout_rate: float = 1e-3
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    preprocess: Preprocess = PLUS_MINUS_ONE

    @property
    def image_size(self) -> int:
        return max(32, 32 * round(self.input_size * self.resolution_multiplier / 32))


VARIANTS = {  # trainable parameters: keras.applications
    "mobilenet_v1": MobileNetV1Variant(params=4_231_976),
}


def separable(x, *, row, context, name):
    """A depthwise and a pointwise convolution, each with normalisation and activation (figure 3)."""
    norm, activation = context.norm, context.activation
    x = depthwise_conv(x, **context.window(row.kernel_size, row.strides), name=f"{name}.conv_dw")
    x = norm(x, activation=activation, name=f"{name}.bn1")
    return conv_norm_act(
        x,
        filters=row.filters,
        norm=norm,
        activation=activation,
        name=f"{name}.conv_pw",
        norm_name=f"{name}.bn2",
    )


# Table 1: block, kernel, strides, expand ratio, filters, depth
ROWS = (
    Row(separable, 3, 1, 1, 64, 1),
    Row(separable, 3, 2, 1, 128, 2),
    Row(separable, 3, 2, 1, 256, 2),
    Row(separable, 3, 2, 1, 512, 6),
    Row(separable, 3, 2, 1, 1024, 2),
)


def trunk(x, v: MobileNetV1Variant):
    context = BlockContext("relu6", batch_norm_of(v), v.padding)
    x = stem(x, filters=make_divisible(32 * v.width_multiplier), context=context)
    return stages(
        x,
        ROWS,
        context=context,
        scale=lambda filters: make_divisible(filters * v.width_multiplier),
    )


FAMILY = Family(trunk, VARIANTS)
mobilenet_v1 = FAMILY.builder("mobilenet_v1")
