"""Multi-head self-attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2)."""

import math

import keras
import numpy as np
from keras import ops

from kvision.errors import UserError
from kvision.layers.initializers import narrow_initializer

MASKED = -1e4  # a score whose share is 0 in float32, and which float16 holds


@keras.saving.register_keras_serializable("kvision")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Attention of each token to all, with one dense layer `qkv` before it and one, `proj`, behind it.

    Input and output: `(batch, tokens, channels)`. With `return_attention`, the shares of attention too,
    `(batch, heads, tokens, tokens)`, whose last axis sums to 1.

    Args:
        num_heads: must divide the channels.
        causal: whether a token attends to itself and those before it alone, as in a decoder.
    """

    def __init__(self, num_heads, causal=False, **keywords):
        super().__init__(**keywords)
        self.num_heads, self.causal = num_heads, causal

    def build(self, input_shape):
        channels = input_shape[-1]
        check_heads(self.num_heads, channels)
        self.qkv, self.proj = dense_pair(self, channels)

    def call(self, x, return_attention=False):
        tokens, channels = x.shape[1:]
        bias = past_alone if self.causal else None
        x, attention = attend(x, self.qkv, self.proj, self.num_heads, bias)
        x = ops.reshape(x, (-1, tokens, channels))
        return (x, attention) if return_attention else x

    def step(self, x, position, keys, values):
        """The attention of one more token to itself and those before it.

        Args:
            x: `(batch, channels)`.
            position: int32 `(batch,)`, the number of tokens before it.
            keys, values: of these, `(batch, heads, length, d)`; what is behind them is not read.

        Returns:
            `(batch, channels)`, and the keys and values with those of this token.
        """
        x = ops.reshape(self.qkv(x), (-1, 3 * self.num_heads, 1, keys.shape[-1]))
        q, k, v = ops.split(x, 3, axis=1)  # pyright: ignore
        places = ops.arange(keys.shape[2], dtype="int32")[:, None]  # (T, 1)
        position = ops.reshape(position, (-1, 1, 1, 1))
        keys, values = ops.where(places == position, k, keys), ops.where(places == position, v, values)
        past = ops.transpose(places) <= position  # (B, 1, 1, T)
        x, _ = pay(q, keys, values, lambda scores: ops.where(past, scores, MASKED))
        return self.proj(ops.reshape(x, (-1, self.qkv.units // 3))), keys, values

    def compute_output_spec(self, x, return_attention=False):
        batch, tokens, _ = x.shape
        output = keras.KerasTensor(x.shape, self.compute_dtype)
        shares = keras.KerasTensor((batch, self.num_heads, tokens, tokens), self.compute_dtype)
        return (output, shares) if return_attention else output

    def macs(self):
        """Multiply-adds for one image."""
        tokens, channels = self.input.shape[1:]
        return tokens * 4 * channels**2 + 2 * tokens**2 * channels

    def get_config(self):
        return super().get_config() | {"num_heads": self.num_heads, "causal": self.causal}


@keras.saving.register_keras_serializable("kvision")
class AttentionShares(keras.layers.Wrapper):
    """The shares of attention that a `MultiHeadSelfAttention` pays, `(batch, heads, tokens, tokens)`.

    A layer of its own: a functional model takes the number of a layer's outputs from its first call.

    Args:
        layer: the attention.
    """

    def call(self, x):
        return self.layer(x, return_attention=True)[1]


def check_heads(num_heads, channels):
    """Raises a UserError unless each head has as many channels."""
    if channels % num_heads:
        raise UserError(f"`num_heads` ({num_heads}) must divide the {channels} channels.")


def past_alone(scores):
    """Scores `(batch, heads, tokens, tokens)` that leave no share to tokens behind one's own."""
    tokens = scores.shape[-1]
    return ops.where(np.tri(tokens, dtype=bool), scores, MASKED)


def pay(q, k, v, bias=None):
    """Scaled dot-product attention: the sums of values, `(batch, heads, queries, d)`, and the shares.

    Args:
        q: `(batch, heads, queries, d)`.
        k, v: `(batch, heads, keys, d)`.
        bias: function of the scores `(batch, heads, queries, keys)` that gives others.
    """
    scores = ops.matmul(q * (1 / math.sqrt(q.shape[-1])), ops.transpose(k, (0, 1, 3, 2)))
    attention = ops.softmax(bias(scores) if bias else scores, axis=-1)
    return ops.matmul(attention, v), attention


def dense_pair(layer, channels):
    """The two dense layers of an attention layer, `qkv` and `proj`."""
    shared = {"dtype": layer.dtype_policy}
    qkv = keras.layers.Dense(3 * channels, kernel_initializer=narrow_initializer(), name="qkv", **shared)
    proj = keras.layers.Dense(channels, kernel_initializer=narrow_initializer(), name="proj", **shared)
    for dense in (qkv, proj):
        dense.build((None, channels))
    return qkv, proj


def attend(x, qkv, proj, num_heads, bias=None):
    """Scaled dot-product attention of several heads.

    Args:
        x: `(batch, tokens, channels)`.
        qkv: dense layer to queries, keys and values, each head by head.
        proj: dense layer at the end.
        num_heads: of each.
        bias: function of the scores `(batch, heads, tokens, tokens)` that gives others.

    Returns:
        `(batch * tokens, channels)`: dense layers are faster on rows; and the shares
        `(batch, heads, tokens, tokens)`.
    """
    tokens, channels = x.shape[1:]
    head_dim = channels // num_heads
    x = ops.reshape(qkv(ops.reshape(x, (-1, channels))), (-1, tokens, 3 * num_heads, head_dim))
    x = ops.transpose(x, (0, 2, 1, 3))  # (B, 3 heads, T, d)
    q, k, v = ops.split(x, 3, axis=1)  # pyright: ignore  (slices would differentiate slowly)
    x, attention = pay(q, k, v, bias)
    x = ops.transpose(x, (0, 2, 1, 3))
    return proj(ops.reshape(x, (-1, channels))), attention
