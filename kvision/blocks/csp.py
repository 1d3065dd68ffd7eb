"""Cross-stage partial blocks (Wang et al. 2019, https://arxiv.org/abs/1911.11929), named as in YOLOX.

`conv` and `wide` are convolutions with normalisation and activation, `base_conv` or `separable_conv` with
`norm` and `activation` given: `conv(x, filters=..., kernel_size=1, strides=1, name=...)`.
"""

import keras

from kvision.blocks.conv import conv_norm_act, depthwise_conv
from kvision.layers import MergePatches


def base_conv(x, *, filters, kernel_size=1, strides=1, norm, activation="silu", name):
    """Convolution, normalisation and activation."""
    return conv_norm_act(
        x,
        filters=filters,
        kernel_size=kernel_size,
        strides=strides,
        padding="symmetric",
        norm=norm,
        activation=activation,
        name=f"{name}.conv",
        norm_name=f"{name}.bn",
    )


def separable_conv(x, *, filters, kernel_size, strides=1, norm, activation="silu", name):
    """A depthwise convolution and one over the channels, each normalised and activated."""
    x = depthwise_conv(
        x, kernel_size=kernel_size, strides=strides, padding="symmetric", name=f"{name}.dconv.conv"
    )
    x = norm(x, activation=activation, name=f"{name}.dconv.bn")
    return base_conv(x, filters=filters, norm=norm, activation=activation, name=f"{name}.pconv")


def focus(x, *, filters, conv, name):
    """The stem: a convolution of 2 x 2 patches. `(batch, H, W, C)` to `(batch, H / 2, W / 2, filters)`."""
    x = MergePatches(name=f"{name}.patches")(x)
    return conv(x, filters=filters, kernel_size=3, name=f"{name}.conv")


def csp_layer(x, *, filters, depth, residual=True, conv, wide, name):
    """Bottlenecks on half of the channels, beside a shortcut with the other half.

    Args:
        x: `(batch, H, W, C)`.
        filters: channels of the output.
        depth: the number of bottlenecks.
        residual: whether each bottleneck is added to its input.
        conv: for kernels of 1 x 1.
        wide: for kernels of 3 x 3.
        name: prefix of the layers' names.

    Returns:
        `(batch, H, W, filters)`.
    """
    main = conv(x, filters=filters // 2, name=f"{name}.conv1")
    aside = conv(x, filters=filters // 2, name=f"{name}.conv2")
    for i in range(depth):
        path = f"{name}.m.{i}"
        y = conv(main, filters=filters // 2, name=f"{path}.conv1")
        y = wide(y, filters=filters // 2, kernel_size=3, name=f"{path}.conv2")
        main = keras.layers.Add(name=f"{path}.add")([main, y]) if residual else y
    x = keras.layers.Concatenate(name=f"{name}.concatenate")([main, aside])
    return conv(x, filters=filters, name=f"{name}.conv3")


def spp_bottleneck(x, *, filters, conv, name):
    """Spatial pyramid pooling: the largest of 5 x 5, 9 x 9 and 13 x 13 places beside the map itself.

    Each pooling is one of 5 x 5 of that before it, which gives the same.

    Args:
        x: `(batch, H, W, C)`.
        filters: channels of the output.
        conv: for kernels of 1 x 1.
        name: prefix of the layers' names.

    Returns:
        `(batch, H, W, filters)`.
    """
    maps = [conv(x, filters=x.shape[-1] // 2, name=f"{name}.conv1")]
    for i in range(3):
        maps.append(keras.layers.MaxPooling2D(5, 1, "same", name=f"{name}.m.{i}")(maps[-1]))
    x = keras.layers.Concatenate(name=f"{name}.concatenate")(maps)
    return conv(x, filters=filters, name=f"{name}.conv2")
