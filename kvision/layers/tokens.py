"""Input tokens of a Transformer's blocks: prefix tokens, position embeddings and encodings."""

import math

import keras
import numpy as np
from keras import ops

from kvision.errors import UserError
from kvision.layers.initializers import narrow_initializer


@keras.saving.register_keras_serializable("kvision")
class PrefixToken(keras.layers.Layer):
    """Puts a learned token before all others: the class token (ViT), the distillation token (DeiT).

    Input: `(batch, tokens, channels)`. Output: `(batch, tokens + 1, channels)`. The variable has the
    layer's name, as the reference checkpoints have it.
    """

    def build(self, input_shape):
        self.token = self.add_weight(
            shape=(1, 1, input_shape[-1]),
            initializer=narrow_initializer(),
            name=self.name,
        )

    def call(self, x):
        token = ops.broadcast_to(ops.cast(self.token, x.dtype), (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)


@keras.saving.register_keras_serializable("kvision")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned embedding to each token.

    Input and output: `(batch, prefix_tokens + height * width, channels)`. Weights that were trained on
    another, square, grid are resampled when they are loaded.

    Args:
        grid: height and width in tokens; (0, 0) for tokens of no map.
        prefix_tokens: tokens before those of the grid; their embeddings are never resampled.
    """

    def __init__(self, grid, prefix_tokens=0, **keywords):
        super().__init__(**keywords)
        self.grid, self.prefix_tokens = tuple(grid), prefix_tokens

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise UserError(f"The number of tokens must be fixed; got {tuple(input_shape)}.")
        self.embedding = self.add_weight(
            shape=(1, *input_shape[1:]),
            initializer=narrow_initializer(),
            name=self.name,
        )

    def call(self, x):
        return x + self.embedding

    def compute_output_shape(self, shape):
        return shape

    def resample(self, name, tensor):
        """An embedding of another grid for this one, bicubic and antialiased; None where it is none."""
        side = math.isqrt(max(0, tensor.shape[1] - self.prefix_tokens)) if tensor.ndim == 3 else 0
        expected = (1, self.prefix_tokens + side**2, self.embedding.shape[-1])
        if tensor.shape != expected or 0 in (side, *self.grid):
            return None
        prefix, patches = np.split(tensor, [self.prefix_tokens], axis=1)
        patches = np.reshape(patches, (1, side, side, -1)).astype("float32")
        patches = ops.image.resize(
            patches, self.grid, interpolation="bicubic", antialias=True, data_format="channels_last"
        )
        patches = np.reshape(ops.convert_to_numpy(patches), (1, -1, tensor.shape[-1]))
        return np.concatenate([prefix, patches], axis=1)

    def get_config(self):
        return super().get_config() | {"grid": self.grid, "prefix_tokens": self.prefix_tokens}


@keras.saving.register_keras_serializable("kvision")
class SinusoidalEncoding(keras.layers.Layer):
    """Adds sines and cosines of the positions (Vaswani et al. 2017, section 3.5).

    Input and output: `(batch, tokens, channels)`, or `(batch, height, width, channels)`, where the first
    half of the channels encodes rows and the second columns. The first half of each encoding are the
    sines, the second the cosines, of falling frequency.

    Args:
        temperature: the longest wave is 2 pi times as many positions long.
    """

    def __init__(self, temperature=10_000.0, **keywords):
        super().__init__(**keywords)
        self.temperature = temperature

    def build(self, input_shape):
        *positions, channels = input_shape[1:]
        if None in positions:
            raise UserError(f"The number of tokens must be fixed; got {tuple(input_shape)}.")
        if channels % (2 * len(positions)):
            raise UserError(f"Channels must be a multiple of {2 * len(positions)}; got {channels}.")
        if len(positions) == 1:
            encoding = self._encode(positions[0], channels)
        else:
            height, width = positions
            rows = np.repeat(self._encode(height, channels // 2)[:, None], width, axis=1)
            columns = np.repeat(self._encode(width, channels // 2)[None], height, axis=0)
            encoding = np.concatenate([rows, columns], axis=-1)
        self.encoding = encoding.astype("float32")

    def _encode(self, count, channels):
        frequencies = self.temperature ** (-np.arange(0, channels, 2) / channels)
        angles = np.arange(count)[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)

    def call(self, x):
        return x + ops.cast(self.encoding, x.dtype)

    def step(self, x, position):
        """One token `(batch, channels)` with the encoding of its position, int32 `(batch,)`."""
        return x + ops.take(ops.cast(self.encoding, x.dtype), position, axis=0)

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature}


@keras.saving.register_keras_serializable("kvision")
class TokenTap(keras.layers.Identity):
    """A tap of `kvision.features` on tokens: the identity, which knows the map that they are.

    Args:
        grid: height and width in tokens.
        prefix_tokens: tokens before those of the grid.
    """

    def __init__(self, grid, prefix_tokens=0, **keywords):
        super().__init__(**keywords)
        self.grid, self.prefix_tokens = tuple(grid), prefix_tokens

    def feature_map(self, x):
        """From `(batch, prefix_tokens + height * width, channels)` to `(batch, height, width, channels)`."""
        x = keras.layers.Cropping1D((self.prefix_tokens, 0), name=f"{self.name}.crop")(x)
        return keras.layers.Reshape((*self.grid, x.shape[-1]), name=f"{self.name}.grid")(x)

    def get_config(self):
        return super().get_config() | {"grid": self.grid, "prefix_tokens": self.prefix_tokens}
