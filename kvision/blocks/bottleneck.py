"""Residual blocks of ResNet and ResNeXt."""

import keras

from kvision.blocks.conv import activate, conv, conv_norm_act
from kvision.errors import UserError


def basic_block(x, *, filters, strides, groups, inner_filters, dilations=(1, 1), norm, name):
    """Two 3 x 3 convolutions and a residual (He et al. 2015, figure 5 left).

    Args:
        x: `(batch, H, W, C)`.
        filters: of both convolutions.
        strides: of the first.
        groups: must be 1.
        inner_filters: must be `filters`.
        dilations: of the first convolution, and of the 3 x 3 convolutions after it.
        norm: `norm(x, activation=..., name=...)`.
        name: prefix of the layers' names.

    Returns:
        `(batch, H / strides, W / strides, filters)`.
    """
    if groups != 1 or inner_filters != filters:
        raise UserError("`groups` and `group_width` are for networks of bottlenecks.")
    shortcut = project(x, filters=filters, strides=strides, norm=norm, name=name)
    x = conv_norm_act(
        x,
        filters=filters,
        kernel_size=3,
        strides=strides,
        dilation=dilations[0],
        padding="symmetric",
        norm=norm,
        activation="relu",
        name=f"{name}.conv1",
        norm_name=f"{name}.bn1",
    )
    x = conv_norm_act(
        x,
        filters=filters,
        kernel_size=3,
        dilation=dilations[1],
        norm=norm,
        name=f"{name}.conv2",
        norm_name=f"{name}.bn2",
    )
    x = keras.layers.Add(name=f"{name}.add")([shortcut, x])
    return activate(x, activation="relu", name=f"{name}.act")


def bottleneck(x, *, filters, strides, groups, inner_filters, dilations=(1, 1), norm, name):
    """1 x 1, 3 x 3 in groups, 1 x 1 to four times the filters, and a residual (figure 5 right).

    The 3 x 3 has the strides and the first dilation, as in torchvision and timm. Arguments as `basic_block`.

    Returns:
        `(batch, H / strides, W / strides, 4 * filters)`.
    """
    shortcut = project(x, filters=4 * filters, strides=strides, norm=norm, name=name)
    x = conv_norm_act(
        x,
        filters=inner_filters,
        norm=norm,
        activation="relu",
        name=f"{name}.conv1",
        norm_name=f"{name}.bn1",
    )
    x = conv(
        x,
        filters=inner_filters,
        kernel_size=3,
        strides=strides,
        groups=groups,
        dilation=dilations[0],
        padding="symmetric",
        name=f"{name}.conv2",
    )
    x = norm(x, activation="relu", name=f"{name}.bn2")
    x = conv_norm_act(x, filters=4 * filters, norm=norm, name=f"{name}.conv3", norm_name=f"{name}.bn3")
    x = keras.layers.Add(name=f"{name}.add")([shortcut, x])
    return activate(x, activation="relu", name=f"{name}.act")


def project(x, *, filters, strides, norm, name):
    """The shortcut: a 1 x 1 convolution where the block changes the shape."""
    if strides == 1 and x.shape[-1] == filters:
        return x
    return conv_norm_act(
        x,
        filters=filters,
        strides=strides,
        norm=norm,
        name=f"{name}.downsample.0",
        norm_name=f"{name}.downsample.1",
    )
