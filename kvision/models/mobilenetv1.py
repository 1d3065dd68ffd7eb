"""MobileNet (Howard et al. 2017, https://arxiv.org/abs/1704.04861).

ReLU6 and batch normalisation follow both convolutions, as in the released code. timm's checkpoints
`mobilenetv1_*` are the network with `padding="symmetric", norm_epsilon=1e-5`.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from kvision.blocks import (
    batch_norm,
    conv_norm_act,
    depthwise_conv,
    make_divisible,
    stem,
    tap,
)
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Preprocess


@dataclass(frozen=True, kw_only=True)
class MobileNetV1Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        width_multiplier: the paper's alpha, on the filters of every layer.
        resolution_multiplier: the paper's rho, on the default input size (to a multiple of 32).
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
    """

    width_multiplier: float = 1.0
    resolution_multiplier: float = 1.0
    padding: str = "same"
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


class Row(NamedTuple):
    """`depth` depthwise separable convolutions, the first of which has the strides."""

    filters: int
    strides: int
    depth: int


ROWS = (  # Table 1
    Row(64, 1, 1),
    Row(128, 2, 2),
    Row(256, 2, 2),
    Row(512, 2, 6),
    Row(1024, 2, 2),
)


def trunk(x, v: MobileNetV1Variant):
    norm = partial(batch_norm, epsilon=v.norm_epsilon, momentum=v.norm_momentum)
    x = stem(
        x, filters=make_divisible(32 * v.width_multiplier), activation="relu6", norm=norm, padding=v.padding
    )
    for stage, row in enumerate(ROWS):
        for i in range(row.depth):
            name = f"blocks.{stage}.{i}"
            strides = row.strides if i == 0 else 1
            x = depthwise_conv(x, kernel_size=3, strides=strides, padding=v.padding, name=f"{name}.conv_dw")
            x = norm(x, activation="relu6", name=f"{name}.bn1")
            x = conv_norm_act(
                x,
                filters=make_divisible(row.filters * v.width_multiplier),
                norm=norm,
                activation="relu6",
                name=f"{name}.conv_pw",
                norm_name=f"{name}.bn2",
            )
        x = tap(x, f"c{stage + 1}")
    return x


FAMILY = Family(trunk, VARIANTS)
mobilenet_v1 = FAMILY.builder("mobilenet_v1")
