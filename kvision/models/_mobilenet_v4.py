"""MobileNetV4 (Qin et al. 2024, https://arxiv.org/abs/2404.10518), as in timm."""

from dataclasses import dataclass
from functools import partial

import keras

from kvision.blocks import (
    BlockContext,
    Row,
    batch_norm_of,
    conv,
    conv_block,
    conv_norm_act,
    depthwise_conv,
    fused_inverted_residual,
    make_divisible,
    residual,
    stages,
    stem,
)
from kvision.layers import LayerScale, MultiQueryAttention
from kvision.models._family import Family
from kvision.spec import BatchNormVariant, Padding, column


def universal_inverted_bottleneck(x, *, row, context, name, layer_scale=None):
    """Section 3.1: two optional depthwise convolutions, before the expansion and after it.

    With both it is "extra depthwise", with the second alone the inverted bottleneck, with the first alone
    ConvNeXt's block, with none a feed-forward network. The last of them has the strides.

    Args:
        x: `(batch, H, W, C)`.
        row: its `kernel_size` are those of the two, 0 for none.
        context: the `BlockContext`.
        name: prefix of the layers' names.
        layer_scale: initial value of the scale of the block's output, None for no scale.

    Returns:
        `(batch, H / strides, W / strides, filters)`.
    """
    inputs, norm, activation = x, context.norm, context.activation
    start, middle = row.kernel_size
    if start:
        window = context.window(start, 1 if middle else row.strides)
        x = depthwise_conv(x, **window, name=f"{name}.dw_start.conv")
        x = norm(x, name=f"{name}.dw_start.bn")
    x = conv_norm_act(
        x,
        filters=make_divisible(inputs.shape[-1] * row.expand_ratio),
        norm=norm,
        activation=activation,
        name=f"{name}.pw_exp.conv",
        norm_name=f"{name}.pw_exp.bn",
    )
    if middle:
        x = depthwise_conv(x, **context.window(middle, row.strides), name=f"{name}.dw_mid.conv")
        x = norm(x, activation=activation, name=f"{name}.dw_mid.bn")
    x = conv_norm_act(
        x, filters=row.filters, norm=norm, name=f"{name}.pw_proj.conv", norm_name=f"{name}.pw_proj.bn"
    )
    if layer_scale:
        x = LayerScale(layer_scale, name=f"{name}.layer_scale")(x)
    return residual(inputs, x, strides=row.strides, drop_path_rate=context.drop_path_rate, name=name)


def mobile_attention(x, *, row, context, name, num_heads, key_dim, kv_strides):
    """Section 3.2: multi-query attention whose keys and values may be sampled down.

    Args:
        x: `(batch, H, W, filters)`.
        row: its `kernel_size` is that of the depthwise convolutions that sample down.
        context: the `BlockContext`.
        name: prefix of the layers' names.
        num_heads: of the queries.
        key_dim: filters of keys and of values.
        kv_strides: by which keys and values are sampled down; 1 for none.

    Returns:
        As `x`.
    """
    inputs = x
    x = context.norm(x, name=f"{name}.norm")

    def projected(part):
        y, prefix = x, f"{name}.attn.{part}"
        if kv_strides > 1:
            y = depthwise_conv(
                y,
                kernel_size=row.kernel_size,
                strides=kv_strides,
                padding=context.padding,
                name=f"{prefix}.down_conv",
            )
            y = context.norm(y, name=f"{prefix}.norm")
        return conv(y, filters=key_dim, name=f"{prefix}.proj")

    queries = conv(x, filters=num_heads * key_dim, name=f"{name}.attn.query.proj")
    x = MultiQueryAttention(num_heads, name=f"{name}.attn")(queries, projected("key"), projected("value"))
    x = conv(x, filters=row.filters, name=f"{name}.attn.output.proj")
    x = LayerScale(LAYER_SCALE, name=f"{name}.layer_scale")(x)
    return residual(inputs, x, strides=1, drop_path_rate=context.drop_path_rate, name=name)


LAYER_SCALE = 1e-5  # of the hybrid networks
fused = fused_inverted_residual
uib = universal_inverted_bottleneck
hybrid_uib = partial(universal_inverted_bottleneck, layer_scale=LAYER_SCALE)
mqa = partial(mobile_attention, num_heads=4, key_dim=64, kv_strides=1)
down_mqa = partial(mobile_attention, num_heads=4, key_dim=64, kv_strides=2)

# block, kernels, strides, expand ratio, filters, depth; a stage a group
CONV_SMALL = (  # Table 11
    (Row(conv_block, 3, 2, 1, 32), Row(conv_block, 1, 1, 1, 32)),
    (Row(conv_block, 3, 2, 1, 96), Row(conv_block, 1, 1, 1, 64)),
    (Row(uib, (5, 5), 2, 3, 96), Row(uib, (0, 3), 1, 2, 96, 4), Row(uib, (3, 0), 1, 4, 96)),
    (
        Row(uib, (3, 3), 2, 6, 128),
        Row(uib, (5, 5), 1, 4, 128),
        Row(uib, (0, 5), 1, 4, 128),
        Row(uib, (0, 5), 1, 3, 128),
        Row(uib, (0, 3), 1, 4, 128, 2),
    ),
    Row(conv_block, 1, 1, 1, 960),
)
CONV_MEDIUM = (  # Table 12
    Row(fused, 3, 2, 4, 48),
    (Row(uib, (3, 5), 2, 4, 80), Row(uib, (3, 3), 1, 2, 80)),
    (
        Row(uib, (3, 5), 2, 6, 160),
        Row(uib, (3, 3), 1, 4, 160, 2),
        Row(uib, (3, 5), 1, 4, 160),
        Row(uib, (3, 3), 1, 4, 160),
        Row(uib, (3, 0), 1, 4, 160),
        Row(uib, (0, 0), 1, 2, 160),
        Row(uib, (3, 0), 1, 4, 160),
    ),
    (
        Row(uib, (5, 5), 2, 6, 256),
        Row(uib, (5, 5), 1, 4, 256),
        Row(uib, (3, 5), 1, 4, 256, 2),
        Row(uib, (0, 0), 1, 4, 256),
        Row(uib, (3, 0), 1, 4, 256),
        Row(uib, (3, 5), 1, 2, 256),
        Row(uib, (5, 5), 1, 4, 256),
        Row(uib, (0, 0), 1, 4, 256, 2),
        Row(uib, (5, 0), 1, 2, 256),
    ),
    Row(conv_block, 1, 1, 1, 960),
)
CONV_LARGE = (  # Table 13
    Row(fused, 3, 2, 4, 48),
    (Row(uib, (3, 5), 2, 4, 96), Row(uib, (3, 3), 1, 4, 96)),
    (
        Row(uib, (3, 5), 2, 4, 192),
        Row(uib, (3, 3), 1, 4, 192, 3),
        Row(uib, (3, 5), 1, 4, 192),
        Row(uib, (5, 3), 1, 4, 192, 5),
        Row(uib, (3, 0), 1, 4, 192),
    ),
    (
        Row(uib, (5, 5), 2, 4, 512),
        Row(uib, (5, 5), 1, 4, 512, 3),
        Row(uib, (5, 0), 1, 4, 512),
        Row(uib, (5, 3), 1, 4, 512),
        Row(uib, (5, 0), 1, 4, 512, 2),
        Row(uib, (5, 3), 1, 4, 512),
        Row(uib, (5, 5), 1, 4, 512),
        Row(uib, (5, 0), 1, 4, 512, 3),
    ),
    Row(conv_block, 1, 1, 1, 960),
)
HYBRID_MEDIUM = (  # Table 14
    Row(fused, 3, 2, 4, 48),
    (Row(hybrid_uib, (3, 5), 2, 4, 80), Row(hybrid_uib, (3, 3), 1, 2, 80)),
    (
        Row(hybrid_uib, (3, 5), 2, 6, 160),
        Row(hybrid_uib, (0, 0), 1, 2, 160),
        Row(hybrid_uib, (3, 3), 1, 4, 160),
        Row(hybrid_uib, (3, 5), 1, 4, 160),
        Row(down_mqa, 3, 1, 1, 160),
        Row(hybrid_uib, (3, 3), 1, 4, 160),
        Row(down_mqa, 3, 1, 1, 160),
        Row(hybrid_uib, (3, 0), 1, 4, 160),
        Row(down_mqa, 3, 1, 1, 160),
        Row(hybrid_uib, (3, 3), 1, 4, 160),
        Row(down_mqa, 3, 1, 1, 160),
        Row(hybrid_uib, (3, 0), 1, 4, 160),
    ),
    (
        Row(hybrid_uib, (5, 5), 2, 6, 256),
        Row(hybrid_uib, (5, 5), 1, 4, 256),
        Row(hybrid_uib, (3, 5), 1, 4, 256, 2),
        Row(hybrid_uib, (0, 0), 1, 2, 256),
        Row(hybrid_uib, (3, 5), 1, 2, 256),
        Row(hybrid_uib, (0, 0), 1, 2, 256),
        Row(hybrid_uib, (0, 0), 1, 4, 256),
        Row(mqa, 3, 1, 1, 256),
        Row(hybrid_uib, (3, 0), 1, 4, 256),
        Row(mqa, 3, 1, 1, 256),
        Row(hybrid_uib, (5, 5), 1, 4, 256),
        Row(mqa, 3, 1, 1, 256),
        Row(hybrid_uib, (5, 0), 1, 4, 256),
        Row(mqa, 3, 1, 1, 256),
        Row(hybrid_uib, (5, 0), 1, 4, 256),
    ),
    Row(conv_block, 1, 1, 1, 960),
)


@dataclass(frozen=True, kw_only=True)
class MobileNetV4Variant(BatchNormVariant):
    """A row of the table.

    Attributes:
        rows: the paper's table.
        stem_filters: of the first convolution; not scaled below a width multiplier of 1.
        head_filters: of the convolution after the pooling; not scaled.
        width_multiplier: factor on the filters of every other layer.
        padding: "symmetric" (PyTorch) or "same" (TensorFlow).
        drop_path_rate: rate of stochastic depth; it grows linearly, so that block i of n, counted from 0, has
            drop_path_rate * i / n where it has a residual.
    """

    rows: tuple
    stem_filters: int = 32
    head_filters: int = 1280
    width_multiplier: float = 1.0
    padding: Padding = column("symmetric", same_shapes=True)
    drop_path_rate: float = column(0.0, free=True)


VARIANTS = {  # trainable parameters: timm
    "mobilenet_v4_conv_small": MobileNetV4Variant(rows=CONV_SMALL, params=3_774_024),
    "mobilenet_v4_conv_medium": MobileNetV4Variant(rows=CONV_MEDIUM, input_size=256, params=9_715_512),
    "mobilenet_v4_conv_large": MobileNetV4Variant(
        rows=CONV_LARGE, stem_filters=24, input_size=384, params=32_590_864
    ),
    "mobilenet_v4_hybrid_medium": MobileNetV4Variant(rows=HYBRID_MEDIUM, input_size=256, params=11_074_648),
}


def trunk(x, v: MobileNetV4Variant):
    context = BlockContext("relu", batch_norm_of(v), v.padding)
    x = stem(x, filters=make_divisible(v.stem_filters * max(1.0, v.width_multiplier)), context=context)
    return stages(
        x,
        v.rows,
        context=context,
        scale=lambda filters: make_divisible(filters * v.width_multiplier),
        drop_path_rate=v.drop_path_rate,
    )


def top(x, v: MobileNetV4Variant):
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = conv_norm_act(
        x,
        filters=v.head_filters,
        norm=batch_norm_of(v),
        activation="relu",
        name="conv_head",
        norm_name="norm_head",
    )
    return keras.layers.Flatten(name="flatten")(x)


FAMILY = Family(trunk, VARIANTS, top)
mobilenet_v4_conv_small = FAMILY.builder("mobilenet_v4_conv_small")
mobilenet_v4_conv_medium = FAMILY.builder("mobilenet_v4_conv_medium")
mobilenet_v4_conv_large = FAMILY.builder("mobilenet_v4_conv_large")
mobilenet_v4_hybrid_medium = FAMILY.builder("mobilenet_v4_hybrid_medium")
