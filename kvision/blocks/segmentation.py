"""Heads that classify each place of a map, named as in torchvision's segmentation networks."""

import keras

from kvision.blocks.conv import activate, batch_norm, conv, conv_norm_act
from kvision.layers import ResizeLike


def head_norm(x, *, activation=None, name):
    """Batch normalisation with PyTorch's defaults, which heads have also on MobileNetV3."""
    return batch_norm(x, epsilon=1e-5, momentum=0.9, activation=activation, name=name)


def fcn_head(x, *, num_classes, dropout_rate=0.1, name):
    """A 3 x 3 convolution to a quarter of the channels, and a classifier of each place.

    Args:
        x: `(batch, H, W, C)`.
        num_classes: channels of the output.
        dropout_rate: in front of the classifier.
        name: prefix of the layers' names.

    Returns:
        Logits `(batch, H, W, num_classes)`.
    """
    x = conv_norm_act(
        x,
        filters=x.shape[-1] // 4,
        kernel_size=3,
        norm=head_norm,
        activation="relu",
        name=f"{name}.0",
        norm_name=f"{name}.1",
    )
    x = keras.layers.Dropout(dropout_rate, name=f"{name}.3")(x)
    return conv(x, filters=num_classes, use_bias=True, name=f"{name}.4")


def atrous_pyramid(x, *, filters, rates, dropout_rate, name):
    """Atrous spatial pyramid pooling (Chen et al. 2017, https://arxiv.org/abs/1706.05587, section 3.3).

    Args:
        x: `(batch, H, W, C)`.
        filters: of each branch, and of the output.
        rates: dilations of the 3 x 3 branches; the others are a 1 x 1 convolution and the mean of the image.
        dropout_rate: at the end.
        name: prefix of the layers' names.

    Returns:
        `(batch, H, W, filters)`.
    """

    def branch(x, path, index=0, **keywords):
        return conv_norm_act(
            x,
            filters=filters,
            norm=head_norm,
            activation="relu",
            name=f"{name}.{path}.{index}",
            norm_name=f"{name}.{path}.{index + 1}",
            **keywords,
        )

    branches = [branch(x, "convs.0")]
    for i, rate in enumerate(rates, start=1):
        branches.append(branch(x, f"convs.{i}", kernel_size=3, dilation=rate))
    pooled = f"convs.{len(rates) + 1}"
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.{pooled}.0")(x)
    branches.append(ResizeLike(name=f"{name}.{pooled}.resize")(branch(mean, pooled, index=1), x))
    x = branch(keras.layers.Concatenate(name=f"{name}.concatenate")(branches), "project")
    return keras.layers.Dropout(dropout_rate, name=f"{name}.project.3")(x)


def lite_head(x, low, *, filters, num_classes, name):
    """The lite reduced form of the pyramid (Howard et al. 2019, https://arxiv.org/abs/1905.02244, figure 10).

    As in torchvision, the gate is the mean of the whole image, where the paper pools 49 x 49 windows.

    Args:
        x: `(batch, H, W, C)`.
        low: a larger map of the same image, which refines the answer.
        filters: of the branches.
        num_classes: channels of the output.
        name: prefix of the layers' names.

    Returns:
        Logits `(batch, height of low, width of low, num_classes)`.
    """
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.scale.0")(x)
    gate = conv(gate, filters=filters, name=f"{name}.scale.1")
    gate = activate(gate, activation="sigmoid", name=f"{name}.scale.2")
    x = conv_norm_act(
        x,
        filters=filters,
        norm=head_norm,
        activation="relu",
        name=f"{name}.cbr.0",
        norm_name=f"{name}.cbr.1",
    )
    x = keras.layers.Multiply(name=f"{name}.multiply")([x, gate])
    x = ResizeLike(name=f"{name}.resize")(x, low)
    logits = [
        conv(low, filters=num_classes, use_bias=True, name=f"{name}.low_classifier"),
        conv(x, filters=num_classes, use_bias=True, name=f"{name}.high_classifier"),
    ]
    return keras.layers.Add(name=f"{name}.add")(logits)


def resize_to_image(logits, image, *, name):
    """Logits of each pixel of the image, resized in the image's precision."""
    return ResizeLike(dtype=image.dtype, name=f"{name}.to_image")(logits, image)
