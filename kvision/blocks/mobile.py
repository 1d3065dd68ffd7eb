"""The rows of a mobile network's table, and the loop that builds them.

Layers are named `blocks.STAGE.INDEX.PART`, as in timm. Consecutive rows with the same number of
filters are one stage.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import keras

from kvision.blocks.conv import conv_norm_act, depthwise_conv, tap
from kvision.blocks.width import make_divisible
from kvision.layers import DropPath


class Row(NamedTuple):
    """`depth` blocks, the first of which has the strides."""

    block: Callable
    kernel_size: int
    strides: int
    expand_ratio: float
    filters: int
    depth: int = 1
    squeeze: bool = True  # where the network has squeeze-and-excitation
    activation: str | None = None  # None is the network's


def stages(x, rows, *, width_multiplier=1.0, activation, squeeze=None, drop_path_rate=0.0, norm, padding):
    """Builds the rows of a table and taps the last tensor of every stride as `c1`, `c2`, ...

    Args:
        x: the stem's output, `(batch, H / 2, W / 2, C)`.
        rows: `Row`s. Their filters are scaled here, the expanded filters follow.
        width_multiplier: factor on all filters, rounded to multiples of 8.
        activation: a Keras activation by name.
        squeeze: `squeeze(x, block_filters=..., name=...)`, or None for no squeeze-and-excitation.
        drop_path_rate: of the last block; it grows linearly from 0 at the first.
        norm: `norm(x, activation=..., name=...)`.
        padding: "same" or "symmetric".

    Returns:
        The last row's tensor, tapped.
    """
    level = 1
    built, total = 0, sum(row.depth for row in rows)
    for stage, (_, stage_rows) in enumerate(itertools.groupby(rows, key=lambda row: row.filters)):
        blocks = [(row, i) for row in stage_rows for i in range(row.depth)]
        for index, (row, i) in enumerate(blocks):
            strides = row.strides if i == 0 else 1
            if strides > 1:
                x, level = tap(x, f"c{level}"), level + 1
            x = row.block(
                x,
                filters=make_divisible(row.filters * width_multiplier),
                kernel_size=row.kernel_size,
                strides=strides,
                expand_ratio=row.expand_ratio,
                activation=row.activation or activation,
                squeeze=squeeze if row.squeeze else None,
                drop_path_rate=drop_path_rate * built / total,
                norm=norm,
                padding=padding,
                name=f"blocks.{stage}.{index}",
            )
            built += 1
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
    name,
):
    """MBConv: expand, depthwise, squeeze-and-excite, project (MobileNetV2, section 3.3).

    Without the expansion where `expand_ratio` is 1. `(batch, H, W, C)` to
    `(batch, H / strides, W / strides, filters)`; a residual where the two are alike.
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
    x = depthwise_conv(x, kernel_size=kernel_size, strides=strides, padding=padding, name=f"{name}.conv_dw")
    x = norm(x, activation=activation, name=f"{name}.{dw_norm}")
    if squeeze:
        x = squeeze(x, block_filters=inputs.shape[-1], name=f"{name}.se")
    x = conv_norm_act(
        x, filters=filters, norm=norm, name=f"{name}.{project}", norm_name=f"{name}.{project_norm}"
    )
    if strides > 1 or inputs.shape[-1] != filters:
        return x
    if drop_path_rate:
        x = DropPath(drop_path_rate, name=f"{name}.drop_path")(x)
    return keras.layers.Add(name=f"{name}.add")([inputs, x])


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
    name,
):
    """Convolution, normalisation and activation as a row of a table."""
    return conv_norm_act(
        x,
        filters=filters,
        kernel_size=kernel_size,
        strides=strides,
        norm=norm,
        activation=activation,
        padding=padding,
        name=f"{name}.conv",
        norm_name=f"{name}.bn1",
    )
