"""The rows of a mobile network's table, the loop that builds them, and their blocks.

Layers are named `blocks.STAGE.INDEX.PART`, as in timm.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras

from kvision.blocks.conv import conv_norm_act, depthwise_conv, tap
from kvision.blocks.stochastic_depth import drop_path_rates
from kvision.blocks.width import dilated, make_divisible
from kvision.layers import DropPath


class Row(NamedTuple):
    """`depth` blocks, the first of which has the strides.

    Each is `block(x, row=..., context=..., name=...)`, with its own filters and strides in the row.
    """

    block: Callable
    kernel_size: int | tuple[int, int]
    strides: int
    expand_ratio: float
    filters: int
    depth: int = 1
    squeeze: bool = True  # where the network has squeeze-and-excitation
    activation: str | None = None  # None is the network's


class BlockContext(NamedTuple):
    """Settings of a block that the network decides, not its row.

    Attributes:
        activation: a Keras activation by name.
        norm: `norm(x, activation=..., name=...)`.
        padding: "same" or "symmetric".
        squeeze: `squeeze(x, block_filters=..., name=...)`, or None for no squeeze-and-excitation.
        drop_path_rate: probability that a sample's branch is dropped.
        dilation: of the convolutions over windows.
    """

    activation: str
    norm: Callable
    padding: str
    squeeze: Callable | None = None
    drop_path_rate: float = 0.0
    dilation: int = 1

    def window(self, kernel_size: int, strides: int) -> dict:
        """The keywords of a convolution over a window; a dilation takes the place of the strides."""
        return {
            "kernel_size": kernel_size,
            "strides": strides if self.dilation == 1 else 1,
            "dilation": self.dilation,
            "padding": self.padding,
        }


def stem(x, *, filters, context):
    """The first convolution: 3 x 3 with strides 2. `(batch, H, W, C)` to `(batch, H / 2, W / 2, filters)`."""
    return conv_norm_act(
        x,
        filters=filters,
        **context.window(3, 2),
        norm=context.norm,
        activation=context.activation,
        name="conv_stem",
        norm_name="bn1",
    )


def head(x, *, filters, context):
    """The last convolution: 1 x 1."""
    return conv_norm_act(
        x,
        filters=filters,
        norm=context.norm,
        activation=context.activation,
        name="conv_head",
        norm_name="bn2",
    )


def stages(x, table, *, context, scale, drop_path_rate=0.0, output_stride=32):
    """Builds a table and taps the last tensor of every stride as `c1`, `c2`, ...

    Args:
        x: the stem's output, `(batch, H / 2, W / 2, C)`.
        table: a stage a line: a `Row` or several.
        context: the network's `BlockContext`.
        scale: from a row's filters to those that are built; the expanded filters follow.
        drop_path_rate: stochastic depth: block i of n, counted from 0, has the rate drop_path_rate * i / n.
        output_stride: 8, 16 or 32. Below 32 the blocks that would pass it, and all after them, dilate their
            depthwise convolutions, as in torchvision. The taps stay where they are.

    Returns:
        The last row's tensor, tapped.
    """
    level, blocks = 1, list(_blocks(table, scale))
    rates = drop_path_rates(drop_path_rate, len(blocks), last_has_rate=False)
    dilations = dilated((row.strides for _, row in blocks), stride=2, output_stride=output_stride)
    for (name, row), rate, (_, dilation) in zip(blocks, rates, dilations, strict=True):
        if row.strides > 1:
            x, level = tap(x, f"c{level}"), level + 1
        block_context = context._replace(
            activation=row.activation or context.activation,
            squeeze=context.squeeze if row.squeeze else None,
            drop_path_rate=rate,
            dilation=dilation,
        )
        x = row.block(x, row=row, context=block_context, name=name)
    return tap(x, f"c{level}")


def _blocks(table, scale):
    """The name of each block, and its row with the filters and strides to build."""
    for stage, rows in enumerate(table):
        rows = (rows,) if isinstance(rows, Row) else rows
        places = [(row, i) for row in rows for i in range(row.depth)]
        for index, (row, i) in enumerate(places):
            strides = row.strides if i == 0 else 1
            yield f"blocks.{stage}.{index}", row._replace(filters=scale(row.filters), strides=strides)


def inverted_residual(x, *, row, context, name):
    """MBConv: expand, depthwise, squeeze-and-excite, project (MobileNetV2, section 3.3).

    Without the expansion where `expand_ratio` is 1. `(batch, H, W, C)` to
    `(batch, H / strides, W / strides, filters)`; a residual where the two are alike.
    """
    inputs, norm, activation = x, context.norm, context.activation
    dw_norm, project, project_norm = "bn1", "conv_pw", "bn2"
    if row.expand_ratio != 1:
        dw_norm, project, project_norm = "bn2", "conv_pwl", "bn3"
        x = conv_norm_act(
            x,
            filters=make_divisible(x.shape[-1] * row.expand_ratio),
            norm=norm,
            activation=activation,
            name=f"{name}.conv_pw",
            norm_name=f"{name}.bn1",
        )
    x = depthwise_conv(x, **context.window(row.kernel_size, row.strides), name=f"{name}.conv_dw")
    x = norm(x, activation=activation, name=f"{name}.{dw_norm}")
    if context.squeeze:
        x = context.squeeze(x, block_filters=inputs.shape[-1], name=f"{name}.se")
    x = conv_norm_act(
        x, filters=row.filters, norm=norm, name=f"{name}.{project}", norm_name=f"{name}.{project_norm}"
    )
    return residual(inputs, x, strides=row.strides, drop_path_rate=context.drop_path_rate, name=name)


def residual(inputs, x, *, strides, drop_path_rate, name):
    """The sum of a block's input and output, or the output alone where their shapes differ."""
    if strides > 1 or inputs.shape[-1] != x.shape[-1]:
        return x
    if drop_path_rate:
        x = DropPath(drop_path_rate, name=f"{name}.drop_path")(x)
    return keras.layers.Add(name=f"{name}.add")([inputs, x])


def fused_inverted_residual(x, *, row, context, name):
    """Fused-MBConv: one convolution expands and looks around, another projects (EfficientNetV2, figure 2).

    A single convolution where `expand_ratio` is 1. Shapes as `inverted_residual`.
    """
    inputs = x
    if row.expand_ratio == 1:
        x = conv_block(x, row=row, context=context, name=name)
    else:
        x = conv_norm_act(
            x,
            filters=make_divisible(x.shape[-1] * row.expand_ratio),
            **context.window(row.kernel_size, row.strides),
            norm=context.norm,
            activation=context.activation,
            name=f"{name}.conv_exp",
            norm_name=f"{name}.bn1",
        )
        x = conv_norm_act(
            x, filters=row.filters, norm=context.norm, name=f"{name}.conv_pwl", norm_name=f"{name}.bn2"
        )
    return residual(inputs, x, strides=row.strides, drop_path_rate=context.drop_path_rate, name=name)


def conv_block(x, *, row, context, name):
    """Convolution, normalisation and activation as a row of a table."""
    return conv_norm_act(
        x,
        filters=row.filters,
        **context.window(row.kernel_size, row.strides),
        norm=context.norm,
        activation=context.activation,
        name=f"{name}.conv",
        norm_name=f"{name}.bn1",
    )
