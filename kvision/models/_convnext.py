"""ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545) and V2 (Woo et al. 2023, 2301.00808).

Atto is timm's, the others the papers'.
"""

from dataclasses import dataclass
from functools import partial

import keras

from kvision.blocks import (
    activate,
    conv,
    depthwise_conv,
    drop_path_rates,
    layer_norm,
    patchify,
    residual,
    tap,
)
from kvision.layers import GlobalResponseNormalization, LayerScale
from kvision.layers.initializers import narrow_initializer
from kvision.models._family import Family
from kvision.spec import Variant, column


@dataclass(frozen=True, kw_only=True)
class ConvNeXtVariant(Variant):
    """A row of the table.

    Attributes:
        depths: blocks a stage.
        filters: of each stage.
        layer_scale: initial value of the scale of a block's output; None for none.
        response_norm: whether global response normalisation follows the GELU (V2).
        drop_path_rate: rate of stochastic depth of the last block, linear from 0 at the first.
        norm_epsilon: added to the variance.
    """

    depths: tuple[int, int, int, int]
    filters: tuple[int, int, int, int]
    layer_scale: float | None = 1e-6
    response_norm: bool = False
    drop_path_rate: float = column(0.0, free=True)
    norm_epsilon: float = column(1e-6, same_shapes=True)


def v2(depths, filters, params) -> ConvNeXtVariant:
    return ConvNeXtVariant(
        depths=depths, filters=filters, layer_scale=None, response_norm=True, params=params
    )


VARIANTS = {  # section 3; trainable parameters: timm
    "convnext_atto": ConvNeXtVariant(depths=(2, 2, 6, 2), filters=(40, 80, 160, 320), params=3_695_520),
    "convnext_tiny": ConvNeXtVariant(depths=(3, 3, 9, 3), filters=(96, 192, 384, 768), params=28_589_128),
    "convnext_small": ConvNeXtVariant(depths=(3, 3, 27, 3), filters=(96, 192, 384, 768), params=50_223_688),
    "convnext_base": ConvNeXtVariant(depths=(3, 3, 27, 3), filters=(128, 256, 512, 1024), params=88_591_464),
    "convnext_large": ConvNeXtVariant(
        depths=(3, 3, 27, 3), filters=(192, 384, 768, 1536), params=197_767_336
    ),
    "convnext_xlarge": ConvNeXtVariant(
        depths=(3, 3, 27, 3), filters=(256, 512, 1024, 2048), params=350_196_968
    ),
    "convnext_v2_atto": v2((2, 2, 6, 2), (40, 80, 160, 320), 3_708_400),
    "convnext_v2_tiny": v2((3, 3, 9, 3), (96, 192, 384, 768), 28_635_496),
    "convnext_v2_base": v2((3, 3, 27, 3), (128, 256, 512, 1024), 88_717_800),
}


def block(x, v: ConvNeXtVariant, *, drop_path_rate, name):
    """Depthwise 7 x 7, norm, expansion to four times the filters, GELU, projection (figure 4)."""
    inputs, filters = x, x.shape[-1]
    dense = partial(conv, use_bias=True, initializer=narrow_initializer)
    x = depthwise_conv(
        x, kernel_size=7, use_bias=True, initializer=narrow_initializer, name=f"{name}.conv_dw"
    )
    x = layer_norm(x, epsilon=v.norm_epsilon, name=f"{name}.norm")
    x = dense(x, filters=4 * filters, name=f"{name}.mlp.fc1")
    x = activate(x, activation="gelu", name=f"{name}.mlp.act")
    if v.response_norm:
        x = GlobalResponseNormalization(name=f"{name}.mlp.grn")(x)
    x = dense(x, filters=filters, name=f"{name}.mlp.fc2")
    if v.layer_scale is not None:
        x = LayerScale(v.layer_scale, name=name)(x)
    return residual(inputs, x, strides=1, drop_path_rate=drop_path_rate, name=name)


def trunk(x, v: ConvNeXtVariant):
    norm = partial(layer_norm, epsilon=v.norm_epsilon)
    rates = iter(drop_path_rates(v.drop_path_rate, sum(v.depths)))
    for stage, (depth, filters) in enumerate(zip(v.depths, v.filters, strict=True)):
        if stage == 0:
            x = norm(patchify(x, filters=filters, size=4, name="stem.0"), name="stem.1")
        else:
            x = norm(x, name=f"stages.{stage}.downsample.0")
            x = patchify(x, filters=filters, size=2, name=f"stages.{stage}.downsample.1")
        for i in range(depth):
            x = block(x, v, drop_path_rate=next(rates), name=f"stages.{stage}.blocks.{i}")
        x = tap(x, f"c{stage + 2}")
    return x


def top(x, v: ConvNeXtVariant):
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return layer_norm(x, epsilon=v.norm_epsilon, name="head.norm")


FAMILY = Family(trunk, VARIANTS, top, classifier="head.fc")
convnext_atto = FAMILY.builder("convnext_atto")
convnext_tiny = FAMILY.builder("convnext_tiny")
convnext_small = FAMILY.builder("convnext_small")
convnext_base = FAMILY.builder("convnext_base")
convnext_large = FAMILY.builder("convnext_large")
convnext_xlarge = FAMILY.builder("convnext_xlarge")
convnext_v2_atto = FAMILY.builder("convnext_v2_atto")
convnext_v2_tiny = FAMILY.builder("convnext_v2_tiny")
convnext_v2_base = FAMILY.builder("convnext_v2_base")
