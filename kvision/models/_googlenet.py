"""GoogLeNet (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).

`googlenet` is the paper's: biases, response normalisation, 5 x 5 kernels in the third branch.
`googlenet_bn` is torchvision's: batch normalisation instead, and 3 x 3 kernels in the third branch
(https://github.com/pytorch/vision/issues/906). Auxiliary heads pool 5 x 5 with strides 3, as in the paper;
torchvision's cut 14 pixels into four parts, which differs while training alone.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import keras

from kvision.blocks import activate, batch_norm_of, conv, conv_norm_act, max_pool, tap
from kvision.layers import LocalResponseNormalization
from kvision.layers.initializers import he_initializer
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, column


class Row(NamedTuple):
    """An inception module: the filters of its branches, or None for pooling instead."""

    name: str
    one: int  # 1 x 1
    three_reduce: int
    three: int  # 3 x 3
    five_reduce: int
    five: int  # 5 x 5
    pool: int


ROWS = (  # Table 1; a list a stride
    (
        Row("inception3a", 64, 96, 128, 16, 32, 32),
        Row("inception3b", 128, 128, 192, 32, 96, 64),
    ),
    (
        Row("inception4a", 192, 96, 208, 16, 48, 64),
        Row("inception4b", 160, 112, 224, 24, 64, 64),
        Row("inception4c", 128, 128, 256, 24, 64, 64),
        Row("inception4d", 112, 144, 288, 32, 64, 64),
        Row("inception4e", 256, 160, 320, 32, 128, 128),
    ),
    (
        Row("inception5a", 256, 160, 320, 32, 128, 128),
        Row("inception5b", 384, 192, 384, 48, 128, 128),
    ),
)
AUXILIARY_HEADS = {"aux1": "inception4a", "aux2": "inception4d"}


@dataclass(frozen=True, kw_only=True)
class GoogLeNetVariant(BatchNormVariant):
    """A row of the table.

    Attributes:
        norm: whether to normalise by batch; the norm's columns have no effect else.
        five: kernel size of the third branch.
        width_multiplier: factor on the filters of every layer.
        auxiliary: whether to add the two auxiliary heads, for training.
    """

    norm: bool = False
    five: int = 5
    width_multiplier: float = 1.0
    auxiliary: bool = column(False, free=True)
    dropout_rate: float = 0.4
    norm_epsilon: float = 1e-3


VARIANTS = {  # trainable parameters: the sum over Table 1; torchvision without its auxiliary heads
    "googlenet": GoogLeNetVariant(params=6_998_552),
    "googlenet_bn": GoogLeNetVariant(norm=True, five=3, preprocess=PLUS_MINUS_ONE, params=6_624_904),
}


def convolve(x, v: GoogLeNetVariant, filters, *, kernel_size=1, strides=1, name):
    """Convolution, batch normalisation where the network has it, ReLU."""
    keywords = {
        "filters": max(1, round(filters * v.width_multiplier)),
        "kernel_size": kernel_size,
        "strides": strides,
        "padding": "symmetric",
        # By fan-out the variance would grow in each module, whose first convolutions have few filters.
        "initializer": partial(he_initializer, "fan_in"),
        "name": f"{name}.conv",
    }
    if v.norm:
        keywords |= {"norm": batch_norm_of(v), "norm_name": f"{name}.bn"}
        return conv_norm_act(x, activation="relu", **keywords)
    return activate(conv(x, use_bias=True, **keywords), activation="relu", name=f"{name}.act")


def response_norm(x, v: GoogLeNetVariant, name):
    """As in the released Caffe model, whose alpha of 1e-4 is divided by 5."""
    return x if v.norm else LocalResponseNormalization(alpha=2e-5, k=1.0, name=name)(x)


def inception(x, v: GoogLeNetVariant, row: Row):
    """Figure 2(b): four branches, side by side."""
    name = row.name
    branches = [
        convolve(x, v, row.one, name=f"{name}.branch1"),
        convolve(
            convolve(x, v, row.three_reduce, name=f"{name}.branch2.0"),
            v,
            row.three,
            kernel_size=3,
            name=f"{name}.branch2.1",
        ),
        convolve(
            convolve(x, v, row.five_reduce, name=f"{name}.branch3.0"),
            v,
            row.five,
            kernel_size=v.five,
            name=f"{name}.branch3.1",
        ),
        convolve(
            max_pool(x, pool_size=3, strides=1, padding="same", name=f"{name}.branch4.0"),
            v,
            row.pool,
            name=f"{name}.branch4.1",
        ),
    ]
    return keras.layers.Concatenate(name=name)(branches)


def trunk(x, v: GoogLeNetVariant):
    x = tap(convolve(x, v, 64, kernel_size=7, strides=2, name="conv1"), "c1")
    x = max_pool(x, pool_size=3, padding="ceil", name="maxpool1")
    x = response_norm(x, v, "norm1")
    x = convolve(x, v, 64, name="conv2")
    x = convolve(x, v, 192, kernel_size=3, name="conv3")
    x = tap(response_norm(x, v, "norm2"), "c2")
    for level, rows in enumerate(ROWS, 3):
        # torchvision's last pool is 2 x 2
        size = 2 if v.norm and level == 5 else 3
        x = max_pool(x, pool_size=size, padding="ceil", name=f"maxpool{level - 1}")
        for row in rows:
            x = inception(x, v, row)
        x = tap(x, f"c{level}")
    return x


def auxiliary_head(x, v: GoogLeNetVariant, num_classes, name):
    """An auxiliary head (section 5)."""
    x = keras.layers.AveragePooling2D(min(5, *x.shape[1:3]), 3, name=f"{name}.pool")(x)
    x = convolve(x, v, 128, name=f"{name}.conv")
    units = max(1, round(1024 * v.width_multiplier))
    x = conv(x, filters=units, kernel_size=x.shape[1:3], padding="valid", use_bias=True, name=f"{name}.fc1")
    x = activate(keras.layers.Flatten(name=f"{name}.flatten")(x), activation="relu", name=f"{name}.act")
    x = keras.layers.Dropout(0.7, name=f"{name}.dropout")(x)
    return keras.layers.Dense(num_classes, name=f"{name}.fc2")(x)


FAMILY = Family(
    trunk, VARIANTS, classifier="fc", auxiliary_head=auxiliary_head, auxiliary_heads=AUXILIARY_HEADS
)
googlenet = FAMILY.builder("googlenet")
googlenet_bn = FAMILY.builder("googlenet_bn")
