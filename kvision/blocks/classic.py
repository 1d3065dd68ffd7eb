"""Blocks of AlexNet, CNN-F/M/S and VGG: convolutions, ReLU, pooling, and two hidden dense layers.

Layers are named `features.INDEX`, as in torchvision's sequences.
"""

import math
from typing import NamedTuple

import keras

from kvision.blocks.conv import activate, conv, max_pool, tap
from kvision.layers import LocalResponseNormalization


class ConvRow(NamedTuple):
    """A convolution and what follows it."""

    filters: int
    kernel_size: int = 3
    strides: int = 1
    padding: int | str = "same"  # zeros on each side
    groups: int = 1
    response_norm: bool = False
    pool: tuple[int, int] | None = None  # size and strides


def relu(x, *, name):
    """ReLU."""
    return activate(x, activation="relu", name=name)


def classic_stages(x, rows, *, norm=None, activation=relu, pool_padding="valid"):
    """Builds the rows of a table and taps the last tensor of every stride.

    A stride that is not a power of 2 counts as the next lower one.

    Args:
        x: pixels, `(batch, H, W, C)`.
        rows: `ConvRow`s.
        norm: `norm(x, name=...)` between convolution and activation, or None.
        activation: `activation(x, name=...)`.
        pool_padding: of `max_pool`.

    Returns:
        The last row's tensor, tapped.
    """
    index, stride = 0, 1
    for row in rows:
        if row.strides > 1:
            x = _tap(x, stride)
            stride *= row.strides
        x = conv(
            x,
            filters=row.filters,
            kernel_size=row.kernel_size,
            strides=row.strides,
            groups=row.groups,
            padding=row.padding,
            use_bias=True,
            name=f"features.{index}",
        )
        index += 1
        if norm:
            x = norm(x, name=f"features.{index}")
            index += 1
        x = activation(x, name=f"features.{index}")
        index += 1
        if row.response_norm:
            x = LocalResponseNormalization(name=f"features.{index}.norm")(x)
        if row.pool:
            x = _tap(x, stride)
            x = max_pool(
                x,
                pool_size=row.pool[0],
                strides=row.pool[1],
                padding=pool_padding,
                name=f"features.{index}",
            )
            stride *= row.pool[1]
            index += 1
    return _tap(x, stride)


def _tap(x, stride):
    return tap(x, f"c{int(math.log2(stride))}") if stride > 1 else x


def hidden_layers(x, *, filters, map_size, dropout_rate, names):
    """The two hidden dense layers, as convolutions.

    The first covers `map_size` x `map_size` pixels, what the published image size leaves, or the whole
    map where that is smaller; in a larger map each window is answered, and the answers are averaged.

    Args:
        x: `(batch, H, W, C)`.
        filters: of each layer.
        map_size: height and width that the first layer covers.
        dropout_rate: between the layers.
        names: of the two layers.

    Returns:
        `(batch, filters)`.
    """
    size = tuple(min(map_size, side or map_size) for side in x.shape[1:3])
    x = conv(x, filters=filters, kernel_size=size, padding="valid", use_bias=True, name=names[0])
    x = activate(x, activation="relu", name=f"{names[0]}.act")
    x = keras.layers.Dropout(dropout_rate, name=f"{names[0]}.dropout")(x)
    x = conv(x, filters=filters, use_bias=True, name=names[1])
    x = activate(x, activation="relu", name=f"{names[1]}.act")
    if x.shape[1:3] == (1, 1):
        return keras.layers.Flatten(name="pool")(x)
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)
