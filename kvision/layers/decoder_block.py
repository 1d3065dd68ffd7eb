"""The block of a Transformer's decoder (Vaswani et al. 2017, figure 1)."""

import keras

from kvision.layers.cross_attention import CrossAttention
from kvision.layers.mlp import MLP
from kvision.layers.self_attention import MultiHeadSelfAttention


@keras.saving.register_keras_serializable("kvision")
class DecoderBlock(keras.layers.Layer):
    """Causal self-attention, attention to a memory, and an MLP with a ReLU, each summed and then normalised.

    Input: tokens `(batch, tokens, channels)` and the memory `(batch, places, channels)`; output: as the
    tokens. A layer, and not a function of layers, because a caption is trained with all tokens at once and
    found token by token: `step` is the same block for one more token.

    Args:
        num_heads: of both attentions; must divide the channels.
        hidden: units of the MLP.
        dropout_rate: inside the MLP and on the three branches.
        epsilon: of the layer normalisations.
    """

    def __init__(self, num_heads, hidden, dropout_rate=0.0, epsilon=1e-5, **keywords):
        super().__init__(**keywords)
        self.num_heads, self.hidden = num_heads, hidden
        self.dropout_rate, self.epsilon = dropout_rate, epsilon

    def build(self, input_shape):
        shared = {"dtype": self.dtype_policy}
        self.self_attn = MultiHeadSelfAttention(self.num_heads, causal=True, name="self_attn", **shared)
        self.cross_attn = CrossAttention(self.num_heads, name="cross_attn", **shared)
        self.mlp = MLP(self.hidden, self.dropout_rate, "relu", name="mlp", **shared)
        self.norms = [
            keras.layers.LayerNormalization(epsilon=self.epsilon, name=f"norm{i}", **shared)
            for i in (1, 2, 3)
        ]
        self.dropout = keras.layers.Dropout(self.dropout_rate, **shared)
        for layer in (self.self_attn, self.cross_attn, self.mlp, *self.norms):
            layer.build(input_shape)

    def call(self, x, memory, training=None):
        x = self._sum(0, x, self.self_attn(x), training)
        x = self._sum(1, x, self.cross_attn(x, memory), training)
        return self._sum(2, x, self.mlp(x, training=training), training)

    def compute_output_spec(self, x, memory, training=None):
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def _sum(self, place, x, branch, training=None):
        return self.norms[place](x + self.dropout(branch, training=training))

    def shares(self, x, memory):
        """The shares of attention to the memory, `(batch, heads, tokens, places)`."""
        x = self._sum(0, x, self.self_attn(x))
        return self.cross_attn(x, memory, return_attention=True)[1]

    def remember(self, memory):
        """What `step` needs of the memory: keys and values, each `(batch, heads, places, d)`."""
        return self.cross_attn.remember(memory)

    def step(self, x, state):
        """The block for one more token.

        Args:
            x: `(batch, channels)`.
            state: the position, keys and values of `MultiHeadSelfAttention.step`, then those of `remember`.

        Returns:
            `(batch, channels)`, and the keys and values with those of this token.
        """
        position, keys, values, memory_keys, memory_values = state
        branch, keys, values = self.self_attn.step(x, position, keys, values)
        x = self._sum(0, x, branch)
        branch, _ = self.cross_attn.look(x[:, None], memory_keys, memory_values)
        x = self._sum(1, x, branch[:, 0])
        return self._sum(2, x, self.mlp(x)), keys, values

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "hidden": self.hidden,
            "dropout_rate": self.dropout_rate,
            "epsilon": self.epsilon,
        }
