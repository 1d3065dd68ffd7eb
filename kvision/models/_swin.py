"""Swin Transformer (Liu et al. 2021, https://arxiv.org/abs/2103.14030) and Swin V2 (2111.09883).

The image's size is fixed when the network is built, and may be any multiple of the patch size: maps are
padded to whole windows, windows shrink to small maps, and bias tables of other windows are resampled when
they are loaded. Swin V2 computes its biases, for which `trained_window_size` must be the weights'.
"""

from dataclasses import dataclass
from functools import partial

import keras

from kvision.blocks import (
    drop_path_rates,
    layer_norm,
    patch_merging,
    patchify,
    swin_block,
    swin_v2_block,
    tap,
)
from kvision.errors import UserError
from kvision.models._family import Family
from kvision.spec import Variant, column


@dataclass(frozen=True, kw_only=True)
class SwinVariant(Variant):
    """A row of the table.

    Attributes:
        filters: channels of the first stage; they double from stage to stage.
        depths: blocks a stage.
        num_heads: a stage.
        window_size: height and width of a window in tokens.
        patch_size: height and width of a token of the first stage, in pixels.
        mlp_ratio: width of the MLPs, in channels.
        drop_path_rate: rate of stochastic depth of the last block, linear from 0 at the first.
        norm_epsilon: added to the variance.
    """

    filters: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int = column(7, free=True)
    patch_size: int = 4
    mlp_ratio: float = 4.0
    drop_path_rate: float = column(0.2, free=True)
    norm_epsilon: float = column(1e-5, same_shapes=True)


@dataclass(frozen=True, kw_only=True)
class SwinV2Variant(SwinVariant):
    """A row of the second table.

    Attributes:
        trained_window_size: of a network whose windows grew after its training: theirs in the training, in
            tokens, of which the last stage had half. None where they did not.
    """

    input_size: int = 256
    window_size: int = 8
    trained_window_size: int | None = None


def row(filters, depths, num_heads, drop_path_rate, params) -> SwinVariant:
    return SwinVariant(
        filters=filters, depths=depths, num_heads=num_heads, drop_path_rate=drop_path_rate, params=params
    )


VARIANTS = {  # section 3.3; drop paths of section A2.1 and the released code; trainable parameters: timm
    "swin_tiny": row(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2, 28_288_354),
    "swin_small": row(96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3, 49_606_258),
    "swin_base": row(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5, 87_768_224),
    "swin_large": row(192, (2, 2, 18, 2), (6, 12, 24, 48), 0.2, 196_532_476),
}


V2_VARIANTS = {  # section 4.1; drop paths of the released configurations; trainable parameters: timm
    name: SwinV2Variant(
        filters=filters, depths=depths, num_heads=num_heads, drop_path_rate=rate, params=params
    )
    for name, filters, depths, num_heads, rate, params in (
        ("swin_v2_tiny", 96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2, 28_347_154),
        ("swin_v2_small", 96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3, 49_728_418),
        ("swin_v2_base", 128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5, 87_918_816),
    )
}


def trunk(x, v: SwinVariant):
    if None in x.shape[1:3]:
        raise UserError("A Swin needs a fixed image size: `input_shape` must give height and width.")
    x = patchify(x, filters=v.filters, size=v.patch_size, whole=True, name="patch_embed.proj")
    x = layer_norm(x, epsilon=v.norm_epsilon, name="patch_embed.norm")
    rates = iter(drop_path_rates(v.drop_path_rate, sum(v.depths)))
    block, merge = swin_block, patch_merging
    for stage, (depth, num_heads) in enumerate(zip(v.depths, v.num_heads, strict=True)):
        if isinstance(v, SwinV2Variant):
            trained = v.trained_window_size and v.trained_window_size // (1 + (stage == len(v.depths) - 1))
            block = partial(swin_v2_block, trained_window_size=trained)
            merge = partial(patch_merging, post_norm=True)
        if stage:
            x = merge(x, epsilon=v.norm_epsilon, name=f"layers.{stage}.downsample")
        for i in range(depth):
            x = block(
                x,
                num_heads=num_heads,
                window_size=v.window_size,
                shifted=i % 2 == 1,
                mlp_ratio=v.mlp_ratio,
                epsilon=v.norm_epsilon,
                drop_path_rate=next(rates),
                name=f"layers.{stage}.blocks.{i}",
            )
        x = tap(x, f"c{stage + 2}")
    return x


def top(x, v: SwinVariant):
    x = layer_norm(x, epsilon=v.norm_epsilon, name="norm")
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


FAMILY = Family(trunk, VARIANTS, top, classifier="head.fc")
swin_tiny = FAMILY.builder("swin_tiny")
swin_small = FAMILY.builder("swin_small")
swin_base = FAMILY.builder("swin_base")
swin_large = FAMILY.builder("swin_large")

V2_FAMILY = Family(trunk, V2_VARIANTS, top, classifier="head.fc")
swin_v2_tiny = V2_FAMILY.builder("swin_v2_tiny")
swin_v2_small = V2_FAMILY.builder("swin_v2_small")
swin_v2_base = V2_FAMILY.builder("swin_v2_base")
