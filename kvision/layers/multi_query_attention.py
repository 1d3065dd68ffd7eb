"""Multi-query attention over maps (Qin et al. 2024, https://arxiv.org/abs/2404.10518, section 3.2)."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class MultiQueryAttention(keras.layers.Layer):
    """Attention of several query heads to one set of keys and values, all given as maps.

    Inputs: queries `(batch, H, W, heads * key_dim)`, head by head; keys `(batch, h, w, key_dim)`; values
    `(batch, h, w, value_dim)`. Output: `(batch, H, W, heads * value_dim)`.

    Args:
        num_heads: of the queries.
    """

    def __init__(self, num_heads, **keywords):
        super().__init__(**keywords)
        self.num_heads = num_heads

    def call(self, queries, keys, values):
        height, width = ops.shape(queries)[1:3]
        key_dim, value_dim = keys.shape[-1], values.shape[-1]
        q = ops.reshape(queries, (-1, height * width * self.num_heads, key_dim))  # (B, H W heads, d)
        k = ops.reshape(keys, (-1, _pixels(keys), key_dim))  # (B, h w, d)
        v = ops.reshape(values, (-1, _pixels(values), value_dim))
        scores = ops.matmul(q * key_dim**-0.5, ops.transpose(k, (0, 2, 1)))  # (B, H W heads, h w)
        x = ops.matmul(ops.softmax(scores, axis=-1), v)
        return ops.reshape(x, (-1, height, width, self.num_heads * value_dim))

    def macs(self):
        """Multiply-adds of the two products for one image."""
        queries, keys, values = (tensor.shape for tensor in self.input)
        pairs = math.prod(queries[1:3]) * math.prod(keys[1:3])
        return self.num_heads * pairs * (keys[-1] + values[-1])

    def get_config(self):
        return super().get_config() | {"num_heads": self.num_heads}


def _pixels(x):
    height, width = ops.shape(x)[1:3]
    return height * width
