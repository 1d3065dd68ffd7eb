"""Multi-head self-attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2)."""

import math

import keras
from keras import ops

from kvision.errors import UserError
from kvision.layers.initializers import narrow_initializer


@keras.saving.register_keras_serializable("kvision")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Attention of each token to all, with one dense layer `qkv` before it and one, `proj`, behind it.

    Input and output: `(batch, tokens, channels)`. With `return_attention`, the shares of attention too,
    `(batch, heads, tokens, tokens)`, whose last axis sums to 1.

    Args:
        num_heads: must divide the channels.
    """

    def __init__(self, num_heads, **keywords):
        super().__init__(**keywords)
        self.num_heads = num_heads

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.num_heads:
            raise UserError(f"`num_heads` ({self.num_heads}) must divide the {channels} channels.")
        self.qkv, self.proj = dense_pair(self, channels)

    def call(self, x, return_attention=False):
        tokens, channels = x.shape[1:]
        x, attention = attend(x, self.qkv, self.proj, self.num_heads)
        x = ops.reshape(x, (-1, tokens, channels))
        return (x, attention) if return_attention else x

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
        return super().get_config() | {"num_heads": self.num_heads}


@keras.saving.register_keras_serializable("kvision")
class AttentionShares(keras.layers.Wrapper):
    """The shares of attention that a `MultiHeadSelfAttention` pays, `(batch, heads, tokens, tokens)`.

    A layer of its own: a functional model takes the number of a layer's outputs from its first call.

    Args:
        layer: the attention.
    """

    def call(self, x):
        return self.layer(x, return_attention=True)[1]


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
    scores = ops.matmul(q * (1 / math.sqrt(head_dim)), ops.transpose(k, (0, 1, 3, 2)))
    attention = ops.softmax(bias(scores) if bias else scores, axis=-1)
    x = ops.transpose(ops.matmul(attention, v), (0, 2, 1, 3))
    return proj(ops.reshape(x, (-1, channels))), attention
