"""EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946) and EfficientNet-Lite.

All variants are the base network of Table 1, scaled. B1 to B7 have the coefficients of Google's
released code, which are rounder than the paper's alpha, beta and gamma to the power of phi;
`efficientnet(phi)` has the paper's. Lite (the `lite` folder of the same code) has ReLU6, no
squeeze-and-excitation, stem and head of fixed width, and first and last stages of fixed depth.
"""

import math
import numbers
from dataclasses import dataclass

from kvision.blocks import (
    BlockContext,
    Row,
    batch_norm_of,
    head,
    inverted_residual,
    make_divisible,
    mbconv_squeeze,
    stages,
    stem,
)
from kvision.errors import UserError
from kvision.models import _values
from kvision.models._family import Family
from kvision.spec import IMAGENET, BatchNormVariant, Padding, Preprocess, column

LITE_PREPROCESS = Preprocess((127.0,) * 3, (128.0,) * 3)

# Table 1: block, kernel, strides, expand ratio, filters, depth
ROWS = (
    Row(inverted_residual, 3, 1, 1, 16, 1),
    Row(inverted_residual, 3, 2, 6, 24, 2),
    Row(inverted_residual, 5, 2, 6, 40, 2),
    Row(inverted_residual, 3, 2, 6, 80, 3),
    Row(inverted_residual, 5, 1, 6, 112, 3),
    Row(inverted_residual, 5, 2, 6, 192, 4),
    Row(inverted_residual, 3, 1, 6, 320, 1),
)


@dataclass(frozen=True, kw_only=True)
class EfficientNetVariant(BatchNormVariant):
    """A row of the table.

    Attributes:
        width_multiplier: factor on the filters of every layer.
        depth_multiplier: factor on the blocks of every stage, rounded up.
        lite: the form for phones.
        padding: "same" (TensorFlow) or "symmetric" (PyTorch).
        drop_path_rate: rate of stochastic depth; it grows linearly, so that block i of n, counted from 0, has
            drop_path_rate * i / n where it has a residual.
    """

    width_multiplier: float = 1.0
    depth_multiplier: float = 1.0
    lite: bool = False
    padding: Padding = column("same", same_shapes=True)
    dropout_rate: float = 0.2
    drop_path_rate: float = column(0.2, free=True)
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99


def row(width, depth, input_size, dropout_rate, params, lite=False) -> EfficientNetVariant:
    return EfficientNetVariant(
        width_multiplier=width,
        depth_multiplier=depth,
        input_size=input_size,
        dropout_rate=dropout_rate,
        params=params,
        lite=lite,
        preprocess=LITE_PREPROCESS if lite else IMAGENET,
    )


VARIANTS = {  # coefficients: efficientnet_builder.py and lite of tensorflow/tpu; parameters: timm
    "efficientnet_b0": row(1.0, 1.0, 224, 0.2, 5_288_548),
    "efficientnet_b1": row(1.0, 1.1, 240, 0.2, 7_794_184),
    "efficientnet_b2": row(1.1, 1.2, 260, 0.3, 9_109_994),
    "efficientnet_b3": row(1.2, 1.4, 300, 0.3, 12_233_232),
    "efficientnet_b4": row(1.4, 1.8, 380, 0.4, 19_341_616),
    "efficientnet_b5": row(1.6, 2.2, 456, 0.4, 30_389_784),
    "efficientnet_b6": row(1.8, 2.6, 528, 0.5, 43_040_704),
    "efficientnet_b7": row(2.0, 3.1, 600, 0.5, 66_347_960),
    "efficientnet_lite0": row(1.0, 1.0, 224, 0.2, 4_652_008, lite=True),
    "efficientnet_lite1": row(1.0, 1.1, 240, 0.2, 5_416_680, lite=True),
    "efficientnet_lite2": row(1.1, 1.2, 260, 0.3, 6_092_072, lite=True),
    "efficientnet_lite3": row(1.2, 1.4, 280, 0.3, 8_197_096, lite=True),
    "efficientnet_lite4": row(1.4, 1.8, 300, 0.3, 13_006_568, lite=True),
}


def trunk(x, v: EfficientNetVariant):
    activation, squeeze = ("relu6", None) if v.lite else ("swish", mbconv_squeeze)
    context = BlockContext(activation, batch_norm_of(v), v.padding, squeeze)
    ends_width = 1.0 if v.lite else v.width_multiplier
    x = stem(x, filters=make_divisible(32 * ends_width), context=context)
    x = stages(
        x,
        deepen(ROWS, v.depth_multiplier, keep_ends=v.lite),
        context=context,
        scale=lambda filters: make_divisible(filters * v.width_multiplier),
        drop_path_rate=v.drop_path_rate,
    )
    return head(x, filters=make_divisible(1280 * ends_width), context=context)


def deepen(rows, depth_multiplier, *, keep_ends):
    """The rows with their depths multiplied, rounded up."""
    deep = [row._replace(depth=math.ceil(row.depth * depth_multiplier)) for row in rows]
    return [rows[0], *deep[1:-1], rows[-1]] if keep_ends else deep


FAMILY = Family(trunk, VARIANTS)
efficientnet_b0 = FAMILY.builder("efficientnet_b0")
efficientnet_b1 = FAMILY.builder("efficientnet_b1")
efficientnet_b2 = FAMILY.builder("efficientnet_b2")
efficientnet_b3 = FAMILY.builder("efficientnet_b3")
efficientnet_b4 = FAMILY.builder("efficientnet_b4")
efficientnet_b5 = FAMILY.builder("efficientnet_b5")
efficientnet_b6 = FAMILY.builder("efficientnet_b6")
efficientnet_b7 = FAMILY.builder("efficientnet_b7")
efficientnet_lite0 = FAMILY.builder("efficientnet_lite0")
efficientnet_lite1 = FAMILY.builder("efficientnet_lite1")
efficientnet_lite2 = FAMILY.builder("efficientnet_lite2")
efficientnet_lite3 = FAMILY.builder("efficientnet_lite3")
efficientnet_lite4 = FAMILY.builder("efficientnet_lite4")


def efficientnet(phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15, **keywords):
    """Builds the network at any point of the compound scaling (section 3.3, equation 3).

    Args:
        phi: the compound coefficient; 0 is B0, and it need be neither whole nor positive.
        alpha: depth grows by alpha ** phi.
        beta: width grows by beta ** phi.
        gamma: the default input size is 224 * gamma ** phi, to a multiple of 8.
        **keywords: those of `efficientnet_b0`.

    Returns:
        A functional `keras.Model`, as `efficientnet_b0` does.

    Raises:
        ValueError: `phi` is not from -10 to 10, `alpha`, `beta` or `gamma` not from 1 to 2, or as
            `efficientnet_b0`.
    """
    for key, value, least, most in (
        ("phi", phi, -10, 10), ("alpha", alpha, 1, 2), ("beta", beta, 1, 2), ("gamma", gamma, 1, 2),
    ):  # fmt: skip
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not least <= value <= most:
            raise UserError(f"`{key}` must be a number from {least} to {most}; got {value!r}.")
    scales = {"depth_multiplier": alpha**phi, "width_multiplier": beta**phi}
    size = max(FAMILY.min_size, 8 * round(224 * gamma**phi / 8))
    variant = EfficientNetVariant(
        **_values.checked(FAMILY.variants["efficientnet_b0"], scales), input_size=size
    )
    keywords.setdefault("name", f"efficientnet_phi_{phi:g}")
    return FAMILY.build(variant, **keywords)
