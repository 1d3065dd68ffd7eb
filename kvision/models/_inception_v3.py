"""Inception v3 (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567).

As in TensorFlow's and torchvision's code: there the 5 x 5 branch of the first modules is one convolution,
where the paper's figure 5 shows two of 3 x 3. Average pooling counts the padding, as in torchvision's.
"""

from dataclasses import dataclass

import keras

from kvision.blocks import batch_norm_of, conv, max_pool, tap
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, BatchNormVariant, Preprocess, column


@dataclass(frozen=True, kw_only=True)
class InceptionV3Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        width_multiplier: factor on the filters of every layer.
        auxiliary: whether to add the auxiliary head, for training.
    """

    width_multiplier: float = 1.0
    auxiliary: bool = column(False, free=True)
    input_size: int = 299
    dropout_rate: float = 0.5
    norm_epsilon: float = 1e-3
    preprocess: Preprocess = PLUS_MINUS_ONE


VARIANTS = {  # trainable parameters: timm, without the auxiliary head
    "inception_v3": InceptionV3Variant(params=23_834_568),
}


class Branches:
    """Writes the branches of a module: `self(x, filters, kernel, name)` is a convolution of it."""

    def __init__(self, v: InceptionV3Variant, module: str | None = None):
        self.v, self.prefix = v, f"{module}." if module else ""

    def __call__(self, x, filters, kernel_size, name, *, strides=1, padding="same"):
        name = f"{self.prefix}{name}"
        x = conv(
            x,
            filters=max(1, round(filters * self.v.width_multiplier)),
            kernel_size=kernel_size,
            strides=strides,
            padding="valid" if strides > 1 else padding,
            name=f"{name}.conv",
        )
        return batch_norm_of(self.v)(x, activation="relu", name=f"{name}.bn")

    def chain(self, x, name, *layers):
        """Convolutions one after the other, `name_1`, `name_2`, ...; each filters and kernel size."""
        for index, (filters, kernel_size) in enumerate(layers, 1):
            x = self(x, filters, kernel_size, f"{name}_{index}")
        return x

    def average(self, x):
        """The mean of 3 x 3 pixels; the padding counts."""
        x = keras.layers.ZeroPadding2D(1, name=f"{self.prefix}branch_pool.pad")(x)
        return keras.layers.AveragePooling2D(3, 1, name=f"{self.prefix}branch_pool.pool")(x)

    def concatenate(self, *branches):
        return keras.layers.Concatenate(name=f"{self.prefix}concatenate")(list(branches))


def module_a(x, v, name, pool_filters):
    """Figure 5: 35 x 35."""
    b = Branches(v, name)
    return b.concatenate(
        b(x, 64, 1, "branch1x1"),
        b.chain(x, "branch5x5", (48, 1), (64, 5)),
        b.chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3)),
        b(b.average(x), pool_filters, 1, "branch_pool"),
    )


def module_b(x, v, name):
    """Figure 10: to 17 x 17."""
    b = Branches(v, name)
    double = b.chain(x, "branch3x3dbl", (64, 1), (96, 3))
    return b.concatenate(
        b(x, 384, 3, "branch3x3", strides=2),
        b(double, 96, 3, "branch3x3dbl_3", strides=2),
        max_pool(x, pool_size=3, name=f"{name}.pool"),
    )


def module_c(x, v, name, filters):
    """Figure 6: 17 x 17, with 7 x 7 kernels in two parts."""
    b = Branches(v, name)
    wide, tall = (1, 7), (7, 1)
    return b.concatenate(
        b(x, 192, 1, "branch1x1"),
        b.chain(x, "branch7x7", (filters, 1), (filters, wide), (192, tall)),
        b.chain(
            x,
            "branch7x7dbl",
            (filters, 1),
            (filters, tall),
            (filters, wide),
            (filters, tall),
            (192, wide),
        ),
        b(b.average(x), 192, 1, "branch_pool"),
    )


def module_d(x, v, name):
    """To 8 x 8."""
    b = Branches(v, name)
    three = b.chain(x, "branch3x3", (192, 1))
    seven = b.chain(x, "branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)))
    return b.concatenate(
        b(three, 320, 3, "branch3x3_2", strides=2),
        b(seven, 192, 3, "branch7x7x3_4", strides=2),
        max_pool(x, pool_size=3, name=f"{name}.pool"),
    )


def module_e(x, v, name):
    """Figure 7: 8 x 8, with wide and tall kernels side by side."""
    b = Branches(v, name)
    three = b.chain(x, "branch3x3", (384, 1))
    double = b.chain(x, "branch3x3dbl", (448, 1), (384, 3))
    return b.concatenate(
        b(x, 320, 1, "branch1x1"),
        b(three, 384, (1, 3), "branch3x3_2a"),
        b(three, 384, (3, 1), "branch3x3_2b"),
        b(double, 384, (1, 3), "branch3x3dbl_3a"),
        b(double, 384, (3, 1), "branch3x3dbl_3b"),
        b(b.average(x), 192, 1, "branch_pool"),
    )


def trunk(x, v: InceptionV3Variant):  # Table 1
    b = Branches(v)
    x = b(x, 32, 3, "Conv2d_1a_3x3", strides=2)
    x = b(x, 32, 3, "Conv2d_2a_3x3", padding="valid")
    x = tap(b(x, 64, 3, "Conv2d_2b_3x3"), "c1")
    x = max_pool(x, pool_size=3, name="Pool1")
    x = b(x, 80, 1, "Conv2d_3b_1x1")
    x = tap(b(x, 192, 3, "Conv2d_4a_3x3", padding="valid"), "c2")
    x = max_pool(x, pool_size=3, name="Pool2")
    x = module_a(x, v, "Mixed_5b", 32)
    x = module_a(x, v, "Mixed_5c", 64)
    x = tap(module_a(x, v, "Mixed_5d", 64), "c3")
    x = module_b(x, v, "Mixed_6a")
    x = module_c(x, v, "Mixed_6b", 128)
    x = module_c(x, v, "Mixed_6c", 160)
    x = module_c(x, v, "Mixed_6d", 160)
    x = tap(module_c(x, v, "Mixed_6e", 192), "c4")
    x = module_d(x, v, "Mixed_7a")
    x = module_e(x, v, "Mixed_7b")
    return tap(module_e(x, v, "Mixed_7c"), "c5")


def auxiliary_head(x, v: InceptionV3Variant, num_classes, name):
    """The auxiliary head on the 17 x 17 map (figure 8)."""
    b = Branches(v, name)
    x = keras.layers.AveragePooling2D(min(5, *x.shape[1:3]), 3, name=f"{name}.pool")(x)
    x = b(x, 128, 1, "conv0")
    x = b(x, 768, [min(5, side) for side in x.shape[1:3]], "conv1", padding="valid")
    x = keras.layers.GlobalAveragePooling2D(name=f"{name}.mean")(x)
    return keras.layers.Dense(num_classes, name=f"{name}.fc")(x)


FAMILY = Family(
    trunk,
    VARIANTS,
    classifier="fc",
    min_size=75,
    auxiliary_head=auxiliary_head,
    auxiliary_heads={"AuxLogits": "Mixed_6e.concatenate"},
)
inception_v3 = FAMILY.builder("inception_v3")
