"""Convolution, normalisation, activation, pooling, and the taps between them."""

from collections.abc import Callable
from functools import partial

import keras

from kvision.errors import UserError
from kvision.layers import BatchNorm, GroupedConv2D, WholeConv2D
from kvision.layers.initializers import he_initializer, narrow_initializer
from kvision.spec import BatchNormVariant


def pad(x, *, kernel_size, strides, padding, name):
    """Prepares `x` for a convolution and says which Keras padding that then takes.

    "same" is TensorFlow's padding, which depends on the input size; "symmetric" is PyTorch's,
    (kernel_size - 1) // 2 zeros on each side, at stride 1 equal to "same" for odd kernels; "valid" is
    none; a number is so many zeros on each side.

    Returns:
        The tensor and "same" or "valid".
    """
    if padding == "symmetric":
        padding = "same" if strides == 1 else (kernel_size - 1) // 2
    if padding in ("same", "valid"):
        return x, padding
    return (keras.layers.ZeroPadding2D(padding, name=f"{name}.pad")(x) if padding else x), "valid"


def conv(
    x,
    *,
    filters,
    kernel_size: int | tuple[int, ...] = 1,
    strides=1,
    groups=1,
    dilation=1,
    padding="same",
    use_bias=False,
    initializer=he_initializer,
    name,
):
    """A convolution. `(batch, H, W, C)` to `(batch, H / strides, W / strides, filters)`.

    With `dilation` at stride 1, both "same" and "symmetric" keep height and width.
    """
    x, padding = pad(x, kernel_size=kernel_size, strides=strides, padding=padding, name=name)
    return _layer_of(x, kernel_size, padding, groups)(
        filters,
        kernel_size,
        strides=strides,
        groups=groups,
        dilation_rate=dilation,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=initializer(),
        name=name,
    )(x)


def _layer_of(x, kernel_size, padding, groups):
    if groups > 1:
        return GroupedConv2D
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    whole = padding == "valid" and x.shape[1:3] == size != (1, 1)
    return WholeConv2D if whole else keras.layers.Conv2D


def depthwise_conv(
    x, *, kernel_size, strides=1, dilation=1, padding="same", use_bias=False, initializer=he_initializer, name
):
    """A depthwise convolution. `(batch, H, W, C)` to `(batch, H / strides, W / strides, C)`."""
    x, padding = pad(x, kernel_size=kernel_size, strides=strides, padding=padding, name=name)
    return keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        dilation_rate=dilation,
        padding=padding,
        use_bias=use_bias,
        depthwise_initializer=initializer(),
        name=name,
    )(x)


def patchify(x, *, filters, size, whole=False, name):
    """Maps `size` x `size` pixels to one. `(batch, H, W, C)` to `(batch, H // size, W // size, filters)`.

    With `whole`, an image that is not made of whole squares is a UserError; else the rest is cut off.
    """
    if any(side is not None and side < size for side in x.shape[1:3]):
        raise UserError(f"`patch_size` {size} is larger than the image's {x.shape[1:3]} pixels.")
    if whole and any(side % size for side in x.shape[1:3]):
        height, width = ((side + size // 2) // size * size for side in x.shape[1:3])
        raise UserError(
            f"`input_shape` must be a multiple of `patch_size` {size}; got {x.shape[1:3]} pixels, to which "
            f"{(height, width)} is nearest."
        )
    return conv(
        x,
        filters=filters,
        kernel_size=size,
        strides=size,
        padding="valid",
        use_bias=True,
        initializer=narrow_initializer,
        name=name,
    )


def batch_norm(x, *, epsilon, momentum, activation=None, name):
    """Batch normalisation, then the activation where one is named."""
    x = BatchNorm(epsilon=epsilon, momentum=momentum, name=name)(x)
    return activate(x, activation=activation, name=f"{name}.act")


def batch_norm_of(v: BatchNormVariant) -> Callable:
    """`batch_norm` with a row's columns: `norm(x, activation=..., name=...)`."""
    return partial(batch_norm, epsilon=v.norm_epsilon, momentum=v.norm_momentum)


def layer_norm(x, *, epsilon, activation=None, name):
    """Normalisation over the channels, then the activation where one is named."""
    x = keras.layers.LayerNormalization(epsilon=epsilon, name=name)(x)
    return activate(x, activation=activation, name=f"{name}.act")


def conv_norm_act(x, *, norm, activation=None, norm_name, **keywords):
    """`conv(x, **keywords)`, normalised by `norm(x, activation=..., name=norm_name)`."""
    return norm(conv(x, **keywords), activation=activation, name=norm_name)


def activate(x, *, activation, name):
    """A Keras activation by name; None is the identity and adds no layer."""
    return keras.layers.Activation(activation, name=name)(x) if activation else x


def max_pool(x, *, pool_size, strides=2, padding="valid", name):
    """The largest of each window.

    Args:
        x: `(batch, H, W, C)`. "symmetric" and "ceil" add zeros: there the values must not be negative.
        pool_size: height and width of a window.
        strides: from window to window.
        padding: "same" (TensorFlow); "symmetric" (PyTorch): (pool_size - 1) // 2 on each side; "valid":
            none; "ceil" (Caffe): the windows that hang over at the right and at the bottom count.
        name: of the layer.
    """
    if padding == "ceil":
        x = keras.layers.ZeroPadding2D(((0, strides - 1), (0, strides - 1)), name=f"{name}.pad")(x)
    elif padding == "symmetric":
        x = keras.layers.ZeroPadding2D((pool_size - 1) // 2, name=f"{name}.pad")(x)
    keras_padding = "same" if padding == "same" else "valid"
    return keras.layers.MaxPooling2D(pool_size, strides, keras_padding, name=name)(x)


def tap(x, name):
    """Marks a tensor for `kvision.features`: a no-op layer that saved models keep."""
    return keras.layers.Identity(name=name)(x)
