"""Blocks of Transformers, on tokens `(batch, tokens, channels)` and on maps."""

from functools import partial

import keras

from kvision.blocks.conv import layer_norm
from kvision.blocks.mobile import residual
from kvision.layers import MLP, CosineWindowAttention, MergePatches, MultiHeadSelfAttention, WindowAttention
from kvision.layers.initializers import narrow_initializer


def dense(x, units, *, use_bias=True, name):
    """A dense layer on the last axis."""
    return keras.layers.Dense(units, use_bias=use_bias, kernel_initializer=narrow_initializer(), name=name)(x)


def encoder_block(
    x,
    *,
    num_heads,
    mlp_ratio=4.0,
    activation="gelu",
    epsilon,
    dropout_rate=0.0,
    drop_path_rate=0.0,
    post_norm=False,
    name,
):
    """Self-attention and an MLP, each with a residual.

    Args:
        x: `(batch, tokens, channels)`.
        num_heads: of the attention.
        mlp_ratio: width of the MLP, in channels.
        activation: of the MLP.
        epsilon: of the layer normalisations.
        dropout_rate: inside the MLP and on both branches.
        drop_path_rate: probability that a sample's branch is dropped.
        post_norm: normalisation after each sum, as in Vaswani et al. 2017, not before each branch, as in ViT.
        name: prefix of the layers' names.

    Returns:
        `(batch, tokens, channels)`.
    """
    hidden = round(mlp_ratio * x.shape[-1])
    branches = {
        "attn": MultiHeadSelfAttention(num_heads, name=f"{name}.attn"),
        "mlp": MLP(hidden, dropout_rate, activation, name=f"{name}.mlp"),
    }
    for index, (part, branch) in enumerate(branches.items(), 1):
        norm = partial(layer_norm, epsilon=epsilon, name=f"{name}.norm{index}")
        inputs = x
        x = branch(x if post_norm else norm(x))
        if dropout_rate:
            x = keras.layers.Dropout(dropout_rate, name=f"{name}.{part}.drop")(x)
        x = residual(inputs, x, strides=1, drop_path_rate=drop_path_rate, name=f"{name}.{part}")
        x = norm(x) if post_norm else x
    return x


def swin_block(x, *, num_heads, window_size, shifted, mlp_ratio=4.0, epsilon, drop_path_rate=0.0, name):
    """Attention in windows and an MLP, each after a norm and with a residual (Swin, figure 3b).

    `(batch, height, width, channels)` in and out; see `WindowAttention` for the arguments.
    """
    inputs = x
    x = layer_norm(x, epsilon=epsilon, name=f"{name}.norm1")
    x = WindowAttention(num_heads, window_size, shifted, name=f"{name}.attn")(x)
    inputs = x = residual(inputs, x, strides=1, drop_path_rate=drop_path_rate, name=f"{name}.attn")
    x = layer_norm(x, epsilon=epsilon, name=f"{name}.norm2")
    x = MLP(round(mlp_ratio * x.shape[-1]), name=f"{name}.mlp")(x)
    return residual(inputs, x, strides=1, drop_path_rate=drop_path_rate, name=f"{name}.mlp")


def swin_v2_block(
    x,
    *,
    num_heads,
    window_size,
    trained_window_size=None,
    shifted,
    mlp_ratio=4.0,
    epsilon,
    drop_path_rate=0.0,
    name,
):
    """Cosine attention in windows and an MLP, each before a norm and with a residual (Swin V2, figure 1).

    The norms start at zero, so that the block starts as the identity, as in the released code.
    `(batch, height, width, channels)` in and out; see `CosineWindowAttention` for the arguments.
    """
    attention = CosineWindowAttention(
        num_heads, window_size, shifted, trained_window_size, name=f"{name}.attn"
    )
    branches = {"attn": attention, "mlp": MLP(round(mlp_ratio * x.shape[-1]), name=f"{name}.mlp")}
    for index, (part, branch) in enumerate(branches.items(), 1):
        norm = keras.layers.LayerNormalization(
            epsilon=epsilon, gamma_initializer="zeros", name=f"{name}.norm{index}"
        )
        x = residual(x, norm(branch(x)), strides=1, drop_path_rate=drop_path_rate, name=f"{name}.{part}")
    return x


def patch_merging(x, *, epsilon, post_norm=False, name):
    """Halves a map and doubles its channels (Swin, section 3.1), with the norm at the end in Swin V2."""
    channels = x.shape[-1]
    x = MergePatches(name=f"{name}.merge")(x)
    if post_norm:
        x = dense(x, 2 * channels, use_bias=False, name=f"{name}.reduction")
        return layer_norm(x, epsilon=epsilon, name=f"{name}.norm")
    x = layer_norm(x, epsilon=epsilon, name=f"{name}.norm")
    return dense(x, 2 * channels, use_bias=False, name=f"{name}.reduction")


def classify_token(x, *, index, num_classes, name):
    """A classifier on one token of `(batch, tokens, channels)`."""
    x = keras.layers.Cropping1D((index, x.shape[1] - index - 1), name=f"{name}.token")(x)
    x = keras.layers.Flatten(name=f"{name}.flatten")(x)
    return dense(x, num_classes, name=name)
