"""Multi-head attention of one sequence to another (Vaswani et al. 2017, section 3.2.3)."""

import keras
from keras import ops

from kvision.layers.initializers import narrow_initializer
from kvision.layers.self_attention import check_heads, pay


@keras.saving.register_keras_serializable("kvision")
class CrossAttention(keras.layers.Layer):
    """Attention of each token to each place of a memory, with dense layers `q`, `kv` and `proj`.

    Input: tokens `(batch, tokens, channels)` and the memory `(batch, places, channels)`. Output: as the
    tokens; with `return_attention`, the shares of attention too, `(batch, heads, tokens, places)`, whose last
    axis sums to 1.

    Args:
        num_heads: must divide the channels.
    """

    def __init__(self, num_heads, **keywords):
        super().__init__(**keywords)
        self.num_heads = num_heads

    def build(self, input_shape):
        channels = input_shape[-1]
        check_heads(self.num_heads, channels)
        for name, units in (("q", channels), ("kv", 2 * channels), ("proj", channels)):
            dense = keras.layers.Dense(
                units, kernel_initializer=narrow_initializer(), name=name, dtype=self.dtype_policy
            )
            dense.build((None, channels))
            setattr(self, name, dense)

    def call(self, x, memory, return_attention=False):
        x, attention = self.look(x, *self.remember(memory))
        return (x, attention) if return_attention else x

    def compute_output_spec(self, x, memory, return_attention=False):
        output = keras.KerasTensor(x.shape, self.compute_dtype)
        shape = (x.shape[0], self.num_heads, x.shape[1], memory.shape[1])
        return (output, keras.KerasTensor(shape, self.compute_dtype)) if return_attention else output

    def remember(self, memory):
        """Keys and values of a memory, each `(batch, heads, places, d)`."""
        return ops.split(self._heads(self.kv(memory), 2 * self.num_heads), 2, axis=1)

    def look(self, x, keys, values):
        """The answer for tokens, `(batch, tokens, channels)`, and the shares, from keys and values."""
        x, attention = pay(self._heads(self.q(x), self.num_heads), keys, values)
        x = ops.transpose(x, (0, 2, 1, 3))
        return self.proj(ops.reshape(x, (-1, x.shape[1], self.q.units))), attention

    def _heads(self, x, count):
        x = ops.reshape(x, (-1, x.shape[1], count, self.q.units // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def get_config(self):
        return super().get_config() | {"num_heads": self.num_heads}
