"""LeNet-5 (LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf).

The dense form: in the paper C3 sees a choice of S2's maps, sub-sampling has a trained factor and offset a
map, the squashing function is 1.7159 tanh(2 x / 3), and the output is made of radial basis functions.
C5 answers each window of a larger image, and the answers are averaged. Black is -0.1 and white 1.175, as
ground and stroke are in section II.A.
"""

from dataclasses import dataclass
from typing import Literal

import keras

from kvision.blocks import activate, conv, max_pool, tap
from kvision.models._family import Family
from kvision.spec import Preprocess, Variant


@dataclass(frozen=True, kw_only=True)
class LeNetVariant(Variant):
    """A row of the table.

    Attributes:
        activation: of every layer; "sigmoid" and, in the modern form, "relu" are usual too.
        subsampling: "average", or "max" as in the modern form.
        filters: of C1, C3 and C5, and units of F6.
    """

    activation: str = "tanh"
    subsampling: Literal["average", "max"] = "average"
    filters: tuple[int, int, int, int] = (6, 16, 120, 84)
    input_size: int = 32
    num_classes: int = 10


VARIANTS = {  # trainable parameters: the sum over the layers of figure 2, densely connected
    "lenet5": LeNetVariant(preprocess=Preprocess((20.0,), (200.0,)), params=61_706),
}


def subsample(x, v: LeNetVariant, name):
    """Halves height and width."""
    if v.subsampling == "max":
        return max_pool(x, pool_size=2, name=name)
    return keras.layers.AveragePooling2D(2, name=name)(x)


def convolve(x, v: LeNetVariant, filters, name):
    """5 x 5, without padding."""
    x = conv(x, filters=filters, kernel_size=5, padding="valid", use_bias=True, name=name)
    return activate(x, activation=v.activation, name=f"{name}.act")


def trunk(x, v: LeNetVariant):  # figure 2
    x = convolve(x, v, v.filters[0], "c1.conv")
    x = tap(subsample(x, v, "s2"), "c1")
    x = convolve(x, v, v.filters[1], "c3.conv")
    return tap(subsample(x, v, "s4"), "c2")


def top(x, v: LeNetVariant):
    x = convolve(x, v, v.filters[2], "c5.conv")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(v.filters[3], name="f6")(x)
    return activate(x, activation=v.activation, name="f6.act")


FAMILY = Family(trunk, VARIANTS, top, min_size=32)
lenet5 = FAMILY.builder("lenet5")
