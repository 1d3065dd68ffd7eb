"""The hybrids of ViT (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929): its blocks on a ResNet.

The ResNet is that of Big Transfer (Kolesnikov et al. 2019, https://arxiv.org/abs/1912.11370), with
standardised kernels and group normalisation, but activated after each block, as in the released code.
"""

from dataclasses import dataclass

import keras

from kvision.blocks import activate, max_pool, tap
from kvision.layers import StandardizedConv2D
from kvision.layers.initializers import he_initializer, narrow_initializer
from kvision.models._family import Family
from kvision.models._vit import ViTVariant, check_size, heads, tokens, transformer

GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class HybridVariant(ViTVariant):
    """A row of the table: of ViT's, whose `patch_size` is the ResNet's stride, and what follows.

    Attributes:
        stem_depths: residual blocks a stage of the ResNet.
        stem_filters: of its first convolution. The first stage has four times as many, each other stage twice
            as many as the one before.
    """

    stem_depths: tuple[int, ...]
    stem_filters: int = 64


VARIANTS = {  # trainable parameters: timm, whose first one has no classifier, here of 769,000 parameters
    "vit_base_r50_s16": HybridVariant(
        patch_size=16,
        filters=768,
        depth=12,
        num_heads=12,
        stem_depths=(3, 4, 9),
        params=98_659_112,
    ),
    "vit_small_r26_s32": HybridVariant(
        patch_size=32, filters=384, depth=12, num_heads=6, stem_depths=(2, 2, 2, 2), params=36_431_912
    ),
}


def convolve(x, filters, name, norm_name, *, kernel_size=1, strides=1, activation=None):
    """A convolution with standardised kernels, group normalisation, and the activation where one is named."""
    x = StandardizedConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        epsilon=1e-8,
        kernel_initializer=he_initializer(),
        name=name,
    )(x)
    x = keras.layers.GroupNormalization(GROUPS, epsilon=1e-5, name=norm_name)(x)
    return activate(x, activation=activation, name=f"{norm_name}.act")


def bottleneck(x, filters, strides, name):
    """1 x 1, 3 x 3 with the strides, 1 x 1 to `filters`, and a residual."""
    shortcut, inner = x, filters // 4
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolve(x, filters, f"{name}.downsample.conv", f"{name}.downsample.norm", strides=strides)
    x = convolve(x, inner, f"{name}.conv1", f"{name}.norm1", activation="relu")
    x = convolve(
        x, inner, f"{name}.conv2", f"{name}.norm2", kernel_size=3, strides=strides, activation="relu"
    )
    x = convolve(x, filters, f"{name}.conv3", f"{name}.norm3")
    x = keras.layers.Add(name=f"{name}.add")([shortcut, x])
    return activate(x, activation="relu", name=f"{name}.act")


def trunk(x, v: HybridVariant):
    check_size(x, v)
    name = "patch_embed.backbone"
    x = convolve(
        x,
        v.stem_filters,
        f"{name}.stem.conv",
        f"{name}.stem.norm",
        kernel_size=7,
        strides=2,
        activation="relu",
    )
    x = tap(x, "c1")
    x = max_pool(x, pool_size=3, padding="same", name=f"{name}.stem.pool")
    for stage, depth in enumerate(v.stem_depths):
        if stage:
            x = tap(x, f"c{stage + 1}")
        for i in range(depth):
            x = bottleneck(
                x,
                4 * v.stem_filters * 2**stage,
                2 if i == 0 and stage > 0 else 1,
                f"{name}.stages.{stage}.blocks.{i}",
            )
    x = keras.layers.Conv2D(v.filters, 1, kernel_initializer=narrow_initializer(), name="patch_embed.proj")(x)
    return transformer(x, v)


FAMILY = Family(trunk, VARIANTS, tokens, classifier="head", heads=heads, min_size=32, module=__name__)
vit_base_r50_s16 = FAMILY.builder("vit_base_r50_s16")
vit_small_r26_s32 = FAMILY.builder("vit_small_r26_s32")
