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
    """`depth` blocks, the first of which has the strides."""

    block: Callable
    kernel_size: int | tuple[int, int]
    strides: int
    expand_ratio: float
    filters: int
    depth: int = 1
    squeeze: bool = True  # where the network has squeeze-and-excitation
    activation: str | None = None  # None is the network's


def stem(x, *, filters, activation, norm, padding):
    """The first convolution: 3 x 3 with strides 2. `(batch, H, W, C)` to `(batch, H / 2, W / 2, filters)`."""
    return conv_norm_act(
        x,
        filters=filters,
        kernel_size=3,
        strides=2,
        padding=padding,
        norm=norm,
        activation=activation,
        name="conv_stem",
        norm_name="bn1",
    )


def head(x, *, filters, activation, norm):
    """The last convolution: 1 x 1."""
    return conv_norm_act(
        x, filters=filters, norm=norm, activation=activation, name="conv_head", norm_name="bn2"
    )


def stages(x, table, *, scale, activation, squeeze=None, drop_path_rate=0.0, output_stride=32, norm, padding):
    """Builds a table and taps the last tensor of every stride as `c1`, `c2`, ...

    Args:
        x: the stem's output, `(batch, H / 2, W / 2, C)`.
        table: a stage a line: a `Row` or several.
        scale: from a row's filters to those that are built; the expanded filters follow.
        activation: a Keras activation by name.
        squeeze: `squeeze(x, block_filters=..., name=...)`, or None for no squeeze-and-excitation.
        drop_path_rate: stochastic depth: block i of n, counted from 0, has the rate drop_path_rate * i / n.
        output_stride: 8, 16 or 32. Below 32 the blocks that would pass it, and all after them, dilate their
            depthwise convolutions, as in torchvision. The taps stay where they are.
        norm: `norm(x, activation=..., name=...)`.
        padding: "same" or "symmetric".

    Returns:
        The last row's tensor, tapped.
    """
    level = 1
    table = [(rows,) if isinstance(rows, Row) else rows for rows in table]
    count = sum(row.depth for rows in table for row in rows)
    rates = iter(drop_path_rates(drop_path_rate, count, last_has_rate=False))
    strides = [row.strides if i == 0 else 1 for rows in table for row in rows for i in range(row.depth)]
    dilations = iter(dilated(strides, stride=2, output_stride=output_stride))
    for stage, rows in enumerate(table):
        blocks = [(row, next(dilations)[1], i) for row in rows for i in range(row.depth)]
        for index, (row, dilation, i) in enumerate(blocks):
            strides = row.strides if i == 0 else 1
            if strides > 1:
                x, level = tap(x, f"c{level}"), level + 1
            x = row.block(
                x,
                filters=scale(row.filters),
                kernel_size=row.kernel_size,
                strides=strides,
                expand_ratio=row.expand_ratio,
                activation=row.activation or activation,
                squeeze=squeeze if row.squeeze else None,
                drop_path_rate=next(rates),
                norm=norm,
                padding=padding,
                name=f"blocks.{stage}.{index}",
                **({"dilation": dilation} if dilation > 1 else {}),
            )
    return tap(x, f"c{level}")


def inverted_residual(
    x,
    *,
    filters,
    kernel_size,
    strides,
    expand_ratio,
    activation,
    squeeze,
    drop_path_rate,
    norm,
    padding,
    dilation=1,
    name,
):
    """MBConv: expand, depthwise, squeeze-and-excite, project (MobileNetV2, section 3.3).

    Without the expansion where `expand_ratio` is 1. `(batch, H, W, C)` to
    `(batch, H / strides, W / strides, filters)`; a residual where the two are alike. With `dilation` the
    depthwise convolution has it in place of the strides.
    """
    inputs = x
    dw_norm, project, project_norm = "bn1", "conv_pw", "bn2"
    if expand_ratio != 1:
        dw_norm, project, project_norm = "bn2", "conv_pwl", "bn3"
        x = conv_norm_act(
            x,
            filters=make_divisible(x.shape[-1] * expand_ratio),
            norm=norm,
            activation=activation,
            name=f"{name}.conv_pw",
            norm_name=f"{name}.bn1",
        )
    x = depthwise_conv(
        x,
        kernel_size=kernel_size,
        strides=strides if dilation == 1 else 1,
        dilation=dilation,
        padding=padding,
        name=f"{name}.conv_dw",
    )
    x = norm(x, activation=activation, name=f"{name}.{dw_norm}")
    if squeeze:
        x = squeeze(x, block_filters=inputs.shape[-1], name=f"{name}.se")
    x = conv_norm_act(
        x, filters=filters, norm=norm, name=f"{name}.{project}", norm_name=f"{name}.{project_norm}"
    )
    return residual(inputs, x, strides=strides, drop_path_rate=drop_path_rate, name=name)


def residual(inputs, x, *, strides, drop_path_rate, name):
    """The sum of a block's input and output, or the output alone where their shapes differ."""
    if strides > 1 or inputs.shape[-1] != x.shape[-1]:
        return x
    if drop_path_rate:
        x = DropPath(drop_path_rate, name=f"{name}.drop_path")(x)
    return keras.layers.Add(name=f"{name}.add")([inputs, x])


def fused_inverted_residual(
    x,
    *,
    filters,
    kernel_size,
    strides,
    expand_ratio,
    activation,
    squeeze,  # none in the networks that have this block
    drop_path_rate,
    norm,
    padding,
    name,
):
    """Fused-MBConv: one convolution expands and looks around, another projects (EfficientNetV2, figure 2).

    A single convolution where `expand_ratio` is 1. Shapes as `inverted_residual`.
    """
    inputs = x
    if expand_ratio == 1:
        x = conv_norm_act(
            x,
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            norm=norm,
            activation=activation,
            name=f"{name}.conv",
            norm_name=f"{name}.bn1",
        )
        return residual(inputs, x, strides=strides, drop_path_rate=drop_path_rate, name=name)
    x = conv_norm_act(
        x,
        filters=make_divisible(x.shape[-1] * expand_ratio),
        kernel_size=kernel_size,
        strides=strides,
        padding=padding,
        norm=norm,
        activation=activation,
        name=f"{name}.conv_exp",
        norm_name=f"{name}.bn1",
    )
    x = conv_norm_act(x, filters=filters, norm=norm, name=f"{name}.conv_pwl", norm_name=f"{name}.bn2")
    return residual(inputs, x, strides=strides, drop_path_rate=drop_path_rate, name=name)


def conv_block(
    x,
    *,
    filters,
    kernel_size,
    strides,
    expand_ratio,  # a plain convolution neither expands
    activation,
    squeeze,  # nor squeezes
    drop_path_rate,  # nor has a residual
    norm,
    padding,
    dilation=1,
    name,
):
    """Convolution, normalisation and activation as a row of a table."""
    return conv_norm_act(
        x,
        filters=filters,
        kernel_size=kernel_size,
        strides=strides if dilation == 1 else 1,
        dilation=dilation,
        norm=norm,
        activation=activation,
        padding=padding,
        name=f"{name}.conv",
        norm_name=f"{name}.bn1",
    )
