"""Xception (Chollet 2016, https://arxiv.org/abs/1610.02357), as in keras.applications.

timm's checkpoints `legacy_xception` are the network with `padding="symmetric", norm_epsilon=1e-5`.
"""

from dataclasses import dataclass

import keras

from kvision.blocks import activate, batch_norm_of, conv, conv_norm_act, depthwise_conv, max_pool, tap
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Padding, Preprocess, column


@dataclass(frozen=True, kw_only=True)
class XceptionVariant(BatchNormVariant):
    """A row of the table.

    Attributes:
        middle_depth: blocks of the middle flow.
        width_multiplier: factor on the filters of every layer.
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
    """

    middle_depth: int = 8
    width_multiplier: float = 1.0
    padding: Padding = column("same", same_shapes=True)
    input_size: int = 299
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    preprocess: Preprocess = PLUS_MINUS_ONE


VARIANTS = {  # trainable parameters: keras.applications and timm
    "xception": XceptionVariant(params=22_855_952),
}


def scale(v: XceptionVariant, filters):
    return max(1, round(filters * v.width_multiplier))


def norm(x, v: XceptionVariant, name, *, relu=False):
    return batch_norm_of(v)(x, activation="relu" if relu else None, name=name)


def separable(x, v: XceptionVariant, filters, name):
    """Depthwise, then pointwise, with nothing in between (section 3)."""
    x = depthwise_conv(x, kernel_size=3, name=f"{name}.conv1")
    return conv(x, filters=scale(v, filters), name=f"{name}.pointwise")


def halve(x, v: XceptionVariant, name):
    """3 x 3 max pooling with strides 2; of values of either sign, so that no zeros may be added."""
    if v.padding == "same":
        return max_pool(x, pool_size=3, padding="same", name=name)
    x = max_pool(x, pool_size=3, strides=1, padding="same", name=f"{name}.dense")
    return max_pool(x, pool_size=1, name=name)


def block(x, v: XceptionVariant, filters, name, *, relu=True, halves=True):
    """Separable convolutions, each after a ReLU, and a residual (figure 5).

    Args:
        x: `(batch, H, W, C)`.
        v: the row.
        filters: of each convolution.
        name: prefix of the layers' names.
        relu: whether the first convolution has its ReLU.
        halves: whether height and width are halved.
    """
    shortcut, index = x, 0
    for i, count in enumerate(filters):
        if relu or i:
            x = activate(x, activation="relu", name=f"{name}.rep.{index}")
            index += 1
        x = separable(x, v, count, f"{name}.rep.{index}")
        x = norm(x, v, f"{name}.rep.{index + 1}")
        index += 2
    if halves:
        x = halve(x, v, f"{name}.rep.{index}")
        shortcut = conv_norm_act(
            shortcut,
            filters=scale(v, filters[-1]),
            strides=2,
            norm=lambda x, activation, name: norm(x, v, name),
            name=f"{name}.skip",
            norm_name=f"{name}.skipbn",
        )
    return keras.layers.Add(name=f"{name}.add")([x, shortcut])


def trunk(x, v: XceptionVariant):  # figure 5
    x = conv(x, filters=scale(v, 32), kernel_size=3, strides=2, padding="valid", name="conv1")
    x = norm(x, v, "bn1", relu=True)
    x = conv(x, filters=scale(v, 64), kernel_size=3, padding="valid", name="conv2")
    x = tap(norm(x, v, "bn2", relu=True), "c1")
    x = tap(block(x, v, (128, 128), "block1", relu=False), "c2")
    x = tap(block(x, v, (256, 256), "block2"), "c3")
    x = block(x, v, (728, 728), "block3")
    for i in range(v.middle_depth):
        x = block(x, v, (728, 728, 728), f"block{4 + i}", halves=False)
    x = tap(x, "c4")
    x = block(x, v, (728, 1024), f"block{4 + v.middle_depth}")
    x = norm(separable(x, v, 1536, "conv3"), v, "bn3", relu=True)
    return tap(norm(separable(x, v, 2048, "conv4"), v, "bn4", relu=True), "c5")


FAMILY = Family(trunk, VARIANTS, classifier="fc", min_size=71)
xception = FAMILY.builder("xception")
