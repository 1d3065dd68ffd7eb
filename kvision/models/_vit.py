"""Vision Transformer (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929).

Tiny and small are DeiT's sizes. The classifier is one dense layer, as after fine-tuning. The image's size
is fixed when the network is built, and may be any multiple of the patch size: position embeddings of other
sizes are resampled when they are loaded.
"""

import math
from dataclasses import dataclass

import keras

from kvision.blocks import classify_token, drop_path_rates, encoder_block, layer_norm, patchify
from kvision.errors import UserError
from kvision.layers import PositionEmbedding, PrefixToken, TokenTap
from kvision.models._family import Family
from kvision.spec import PLUS_MINUS_ONE, Preprocess, Variant, column


@dataclass(frozen=True, kw_only=True)
class ViTVariant(Variant):
    """A row of the table.

    Attributes:
        patch_size: height and width of a token, in pixels.
        filters: channels of a token.
        depth: blocks.
        num_heads: of the attention.
        mlp_ratio: width of the MLPs, in channels.
        distilled: whether there is a distillation token, with a classifier of its own. The answer is the mean
            of both classifiers' logits.
        auxiliary: whether a distilled network also returns its two classifiers' answers, for training:
            "predictions" is that of their mean, "class" the class token's, "distillation" the other's.
        drop_path_rate: rate of stochastic depth of the last block, linear from 0 at the first.
        norm_epsilon: added to the variance.
    """

    patch_size: int
    filters: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    distilled: bool = False
    auxiliary: bool = column(False, free=True)
    drop_path_rate: float = column(0.0, free=True)
    norm_epsilon: float = column(1e-6, same_shapes=True)
    preprocess: Preprocess = PLUS_MINUS_ONE

    @property
    def prefix_tokens(self) -> int:
        """Tokens before those of the image."""
        return 1 + self.distilled


def row(patch_size, filters, depth, num_heads, params) -> ViTVariant:
    return ViTVariant(patch_size=patch_size, filters=filters, depth=depth, num_heads=num_heads, params=params)


VARIANTS = {  # Table 1, and Table 1 of DeiT; trainable parameters: timm
    "vit_tiny_patch16": row(16, 192, 12, 3, 5_717_416),
    "vit_small_patch16": row(16, 384, 12, 6, 22_050_664),
    "vit_small_patch32": row(32, 384, 12, 6, 22_878_952),
    "vit_base_patch16": row(16, 768, 12, 12, 86_567_656),
    "vit_base_patch32": row(32, 768, 12, 12, 88_224_232),
    "vit_large_patch16": row(16, 1024, 24, 16, 304_326_632),
    "vit_large_patch32": row(32, 1024, 24, 16, 306_535_400),
    "vit_huge_patch14": row(14, 1280, 32, 16, 632_045_800),
}


def check_size(x, v: ViTVariant):
    """Raises a UserError for an image size that no ViT can be built for."""
    if v.auxiliary and not v.distilled:
        raise UserError("`auxiliary` needs `distilled=True`: only a distilled network has two classifiers.")
    if None in x.shape[1:3]:
        raise UserError("A ViT needs a fixed image size: `input_shape` must give height and width.")


def trunk(x, v: ViTVariant):
    check_size(x, v)
    x = patchify(x, filters=v.filters, size=v.patch_size, whole=True, name="patch_embed.proj")
    return transformer(x, v)


def transformer(x, v: ViTVariant):
    """The blocks, on a map of tokens `(batch, height, width, filters)`."""
    grid = x.shape[1:3]
    x = keras.layers.Reshape((math.prod(grid), v.filters), name="patch_embed.flatten")(x)
    if v.distilled:
        x = PrefixToken(name="dist_token")(x)
    x = PrefixToken(name="cls_token")(x)
    x = PositionEmbedding(grid, v.prefix_tokens, name="pos_embed")(x)
    for i, rate in enumerate(drop_path_rates(v.drop_path_rate, v.depth)):
        x = encoder_block(
            x,
            num_heads=v.num_heads,
            mlp_ratio=v.mlp_ratio,
            epsilon=v.norm_epsilon,
            drop_path_rate=rate,
            name=f"blocks.{i}",
        )
    x = layer_norm(x, epsilon=v.norm_epsilon, name="norm")
    return TokenTap(grid, v.prefix_tokens, name=f"c{round(math.log2(v.patch_size))}")(x)


def tokens(x, v: ViTVariant):
    """The top leaves the tokens as they are: classifiers take one each."""
    return x


def heads(x, v: ViTVariant, num_classes):
    """The classifiers' logits."""
    logits = classify_token(x, index=0, num_classes=num_classes, name="head")
    if not v.distilled:
        return {"predictions": logits}
    distilled = classify_token(x, index=1, num_classes=num_classes, name="head_dist")
    outputs = {"predictions": keras.layers.Average(name="heads")([logits, distilled])}
    return outputs | ({"class": logits, "distillation": distilled} if v.auxiliary else {})


FAMILY = Family(trunk, VARIANTS, tokens, classifier="head", heads=heads, min_size=32)
vit_tiny_patch16 = FAMILY.builder("vit_tiny_patch16")
vit_small_patch16 = FAMILY.builder("vit_small_patch16")
vit_small_patch32 = FAMILY.builder("vit_small_patch32")
vit_base_patch16 = FAMILY.builder("vit_base_patch16")
vit_base_patch32 = FAMILY.builder("vit_base_patch32")
vit_large_patch16 = FAMILY.builder("vit_large_patch16")
vit_large_patch32 = FAMILY.builder("vit_large_patch32")
vit_huge_patch14 = FAMILY.builder("vit_huge_patch14")
