"""MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244) and its minimal forms.

The minimal forms are those of Google's released code: no squeeze-and-excitation, ReLU for hard-swish,
3 x 3 kernels. The stem keeps 16 filters at width multipliers below 1, as there.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import keras

from kvision.blocks import (
    BlockContext,
    Row,
    activate,
    batch_norm_of,
    conv,
    conv_block,
    inverted_residual,
    make_divisible,
    squeeze_excite,
    stages,
    stem,
)
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Padding, Preprocess, column

bneck = inverted_residual

# block, kernel, strides, expand ratio, filters, depth, squeeze, activation; a stage a line
LARGE = (  # Table 1; its expansion sizes are 16, 64, 72, 72, 120, 240, 200, 184, 480, 672, 672 and 960
    Row(bneck, 3, 1, 1, 16, 1, False, "relu"),
    (Row(bneck, 3, 2, 4, 24, 1, False, "relu"), Row(bneck, 3, 1, 3, 24, 1, False, "relu")),
    Row(bneck, 5, 2, 3, 40, 3, True, "relu"),
    (
        Row(bneck, 3, 2, 6, 80, 1, False),
        Row(bneck, 3, 1, 2.5, 80, 1, False),
        Row(bneck, 3, 1, 2.3, 80, 2, False),
    ),
    Row(bneck, 3, 1, 6, 112, 2, True),
    Row(bneck, 5, 2, 6, 160, 3, True),
    Row(conv_block, 1, 1, 1, 960, 1, False),
)
SMALL = (  # Table 2; its expansion sizes are 16, 72, 88, 96, 240, 120, 144, 288 and 576
    Row(bneck, 3, 2, 1, 16, 1, True, "relu"),
    (Row(bneck, 3, 2, 72 / 16, 24, 1, False, "relu"), Row(bneck, 3, 1, 88 / 24, 24, 1, False, "relu")),
    (Row(bneck, 5, 2, 4, 40, 1, True), Row(bneck, 5, 1, 6, 40, 2, True)),
    Row(bneck, 5, 1, 3, 48, 2, True),
    Row(bneck, 5, 2, 6, 96, 3, True),
    Row(conv_block, 1, 1, 1, 576, 1, False),
)


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        rows: the paper's table.
        head_filters: of the convolution after the pooling; scaled by width multipliers above 1.
        minimal: no squeeze-and-excitation, ReLU only, 3 x 3 kernels only.
        width_multiplier: factor on the filters of every other layer.
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
        drop_path_rate: rate of stochastic depth; it grows linearly, so that block i of n, counted from 0, has
            drop_path_rate * i / n where it has a residual.
        output_stride: 8, 16 or 32. Below 32 the last blocks keep their size and dilate their depthwise
            convolutions instead, as in torchvision's segmentation networks.
    """

    rows: tuple[Row | tuple[Row, ...], ...]
    head_filters: int
    minimal: bool = False
    width_multiplier: float = 1.0
    padding: Padding = column("same", same_shapes=True)
    dropout_rate: float = 0.2
    drop_path_rate: float = column(0.0, free=True)
    output_stride: int = column(32, free=True)
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.999
    preprocess: Preprocess = PLUS_MINUS_ONE

    @property
    def activation(self) -> str:
        return "relu" if self.minimal else "hard_swish"


VARIANTS = {  # trainable parameters: timm and keras.applications
    "mobilenet_v3_large": MobileNetV3Variant(rows=LARGE, head_filters=1280, params=5_483_032),
    "mobilenet_v3_small": MobileNetV3Variant(rows=SMALL, head_filters=1024, params=2_542_856),
    "mobilenet_v3_large_minimal": MobileNetV3Variant(
        rows=LARGE, head_filters=1280, minimal=True, params=3_924_288
    ),
    "mobilenet_v3_small_minimal": MobileNetV3Variant(
        rows=SMALL, head_filters=1024, minimal=True, params=2_044_736
    ),
}


def squeeze(x, *, block_filters, name):
    """Squeezes the expanded channels to a quarter (section 5.3)."""
    filters = make_divisible(x.shape[-1] / 4)
    return squeeze_excite(x, filters=filters, activation="relu", gate="hard_sigmoid", name=name)


def minimal_rows(rows):
    """The rows with 3 x 3 kernels and ReLU."""
    if isinstance(rows, Row):
        return rows._replace(kernel_size=min(rows.kernel_size, 3), activation="relu")
    return [minimal_rows(row) for row in rows]


def trunk(x, v: MobileNetV3Variant):
    context = BlockContext(v.activation, batch_norm_of(v), v.padding, None if v.minimal else squeeze)
    x = stem(x, filters=max(16, make_divisible(16 * v.width_multiplier)), context=context)
    return stages(
        x,
        minimal_rows(v.rows) if v.minimal else v.rows,
        context=context,
        scale=lambda filters: make_divisible(filters * v.width_multiplier),
        drop_path_rate=v.drop_path_rate,
        output_stride=v.output_stride,
    )


def top(x, v: MobileNetV3Variant):
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    filters = make_divisible(v.head_filters * max(1.0, v.width_multiplier))
    x = conv(x, filters=filters, use_bias=True, name="conv_head")
    x = activate(x, activation=v.activation, name="conv_head.act")
    return keras.layers.Flatten(name="flatten")(x)


def torchvision_names(names: Iterable[str]) -> dict[str, str]:
    """The paths that torchvision's `features` have for the layers with weights of a trunk.

    Args:
        names: of these layers, in their order.
    """
    paths, blocks, parts = {}, [], []
    for name in names:
        block, layer = re.findall(r"(blocks\.\d+\.\d+|)\.?(.*)", name)[0]
        if block not in blocks:
            blocks.append(block)
            parts = []
        kind = "norm" if layer.startswith("bn") else layer
        if kind not in ("norm", "se.conv_expand"):
            parts.append(layer)
        end = {"norm": "1", "se.conv_reduce": "fc1", "se.conv_expand": "fc2"}.get(kind, "0")
        plain = not block or parts == ["conv"]  # the first and the last convolution
        path = f"{len(blocks) - 1}" if plain else f"{len(blocks) - 1}.block.{len(parts) - 1}"
        paths[name] = f"{path}.{end}"
    return paths


FAMILY = Family(trunk, VARIANTS, top)
mobilenet_v3_large = FAMILY.builder("mobilenet_v3_large")
mobilenet_v3_small = FAMILY.builder("mobilenet_v3_small")
mobilenet_v3_large_minimal = FAMILY.builder("mobilenet_v3_large_minimal")
mobilenet_v3_small_minimal = FAMILY.builder("mobilenet_v3_small_minimal")
