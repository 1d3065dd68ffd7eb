"""Convolution, normalisation, activation, and the taps between them."""

import keras


def kernel_initializer():
    """He initialisation by fan-out, as in EfficientNet's released code and in torchvision.

    A new one for each layer: an initializer draws its seed once, when it is made.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def pad(x, *, kernel_size, strides, padding, name):
    """Prepares `x` for a convolution and says which Keras padding that then takes.

    "same" is TensorFlow's padding, which depends on the input size; "symmetric" is PyTorch's,
    (kernel_size - 1) // 2 zeros on each side. At stride 1 the two are equal for odd kernels.

    Returns:
        The tensor and "same" or "valid".
    """
    if padding not in ("same", "symmetric"):
        raise ValueError(f"`padding` must be 'same' or 'symmetric'; got {padding!r}.")
    if padding == "same" or strides == 1 or kernel_size == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D((kernel_size - 1) // 2, name=f"{name}.pad")(x), "valid"


def conv(x, *, filters, kernel_size=1, strides=1, padding="same", use_bias=False, name):
    """A convolution. `(batch, H, W, C)` to `(batch, H / strides, W / strides, filters)`."""
    x, padding = pad(x, kernel_size=kernel_size, strides=strides, padding=padding, name=name)
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=kernel_initializer(),
        name=name,
    )(x)


def depthwise_conv(x, *, kernel_size, strides=1, padding="same", name):
    """A depthwise convolution without bias. `(batch, H, W, C)` to `(batch, H / strides, W / strides, C)`."""
    x, padding = pad(x, kernel_size=kernel_size, strides=strides, padding=padding, name=name)
    return keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        depthwise_initializer=kernel_initializer(),
        name=name,
    )(x)


def batch_norm(x, *, epsilon, momentum, activation=None, name):
    """Batch normalisation, then the activation where one is named."""
    x = keras.layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name=name)(x)
    return activate(x, activation=activation, name=f"{name}.act")


def conv_norm_act(x, *, norm, activation=None, norm_name, **keywords):
    """`conv(x, **keywords)`, normalised by `norm(x, activation=..., name=norm_name)`."""
    return norm(conv(x, **keywords), activation=activation, name=norm_name)


def activate(x, *, activation, name):
    """A Keras activation by name; None is the identity and adds no layer."""
    return keras.layers.Activation(activation, name=name)(x) if activation else x


def tap(x, name):
    """Marks a tensor for `kvision.features`: a no-op layer that saved models keep."""
    return keras.layers.Identity(name=name)(x)
