"""Attention in windows (Liu et al. 2021, https://arxiv.org/abs/2103.14030, section 3.2), and of cosines.

The latter is of Swin V2 (Liu et al. 2021, https://arxiv.org/abs/2111.09883, section 3).
"""

import math

import keras
import numpy as np
from keras import ops

from kvision.errors import UserError
from kvision.layers.initializers import narrow_initializer
from kvision.layers.self_attention import attend, dense_pair

MASKED = -100.0  # added to the scores of tokens that are not neighbours, as in the released code


@keras.saving.register_keras_serializable("kvision")
class WindowAttention(keras.layers.Layer):
    """Self-attention in each window of a map, with relative position biases, in shifted windows too.

    Input and output: `(batch, height, width, channels)` of fixed size. A map that is not a whole number of
    windows is padded at the right and bottom. Along a side that is no longer than the window, the window
    shrinks to it and there is no shift.

    Args:
        num_heads: must divide the channels.
        window_size: height and width in tokens.
        shifted: whether windows begin half a window further.
    """

    def __init__(self, num_heads, window_size=7, shifted=False, **keywords):
        super().__init__(**keywords)
        self.num_heads, self.window_size, self.shifted = num_heads, window_size, shifted

    def build(self, input_shape):
        _, *sides, channels = input_shape
        if None in sides:
            raise UserError(f"Windows need a map of fixed size; got {tuple(input_shape)}.")
        if channels % self.num_heads:
            raise UserError(f"`num_heads` ({self.num_heads}) must divide the {channels} channels.")
        self.window = tuple(min(side, self.window_size) for side in sides)
        self.shift = tuple(
            self.window_size // 2 if self.shifted and side > self.window_size else 0 for side in sides
        )
        self.padding = tuple(-side % window for side, window in zip(sides, self.window, strict=True))
        self._build_weights(channels)
        height, width = self.window
        y, x = (axis.ravel() for axis in np.indices(self.window))
        differences = (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1
        self.index = differences.ravel().astype("int32")  # (T * T,)
        padded = [side + more for side, more in zip(sides, self.padding, strict=True)]
        self.mask = self._mask(padded) if any(self.shift) else None

    def _build_weights(self, channels):
        self.qkv, self.proj = dense_pair(self, channels)
        self.table = self.add_weight(
            shape=(math.prod(2 * side - 1 for side in self.window), self.num_heads),
            initializer=narrow_initializer(),
            name="relative_position_bias_table",
        )

    def _mask(self, sides):
        """For each window which tokens belong together, `(windows, 1, T, T)`: 0 or `MASKED`."""
        regions = [
            np.digitize(np.arange(side), [side - window, side - shift] if shift else [side - window])
            for side, window, shift in zip(sides, self.window, self.shift, strict=True)
        ]
        regions = regions[0][:, None] * 3 + regions[1]
        height, width = self.window
        windows = regions.reshape(sides[0] // height, height, sides[1] // width, width)
        windows = windows.transpose(0, 2, 1, 3).reshape(-1, height * width)
        apart = windows[:, :, None] != windows[:, None, :]
        return np.where(apart, MASKED, 0.0).astype("float32")[:, None]

    def call(self, x):
        (height, width), channels = self.window, x.shape[-1]
        sides = x.shape[1:3]
        x = _roll(x, self.shift)
        if any(self.padding):
            x = ops.pad(x, ((0, 0), (0, self.padding[0]), (0, self.padding[1]), (0, 0)))
        rows, columns = (sides[0] + self.padding[0]) // height, (sides[1] + self.padding[1]) // width
        x = ops.reshape(x, (-1, rows, height, columns, width, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * width, channels))
        x = self._attend(x)
        x = ops.reshape(x, (-1, rows, columns, height, width, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * height, columns * width, channels))
        if any(self.padding):
            x = x[:, : sides[0], : sides[1]]
        return _roll(x, [-shift for shift in self.shift])

    def compute_output_shape(self, shape):
        return shape

    def _attend(self, x):
        return attend(x, self.qkv, self.proj, self.num_heads, self._add_bias)[0]

    def _biases(self):
        """The bias of each difference of positions, `(differences, heads)`."""
        return self.table

    def _add_bias(self, scores):
        tokens = self.window[0] * self.window[1]
        table = ops.transpose(ops.cast(self._biases(), scores.dtype))  # (heads, differences)
        bias = ops.take(table, self.index, axis=1)
        scores = scores + ops.reshape(bias, (1, self.num_heads, tokens, tokens))
        if self.mask is None:
            return scores
        scores = ops.reshape(scores, (-1, len(self.mask), self.num_heads, tokens, tokens))
        scores = scores + ops.cast(self.mask, scores.dtype)
        return ops.reshape(scores, (-1, self.num_heads, tokens, tokens))

    def resample(self, name, tensor):
        """A bias table of another, square, window for this one; None where it is none.

        As timm does by default: linear between nodes whose distances grow geometrically.
        """
        side = math.isqrt(len(tensor))
        if not name.endswith("relative_position_bias_table") or tensor.shape != (side**2, self.num_heads):
            return None
        biases = np.reshape(tensor, (side, side, -1)).astype("float64")
        for axis, window in enumerate(self.window):
            target = np.arange(-(window - 1), window)
            nodes = _nodes(side, len(target))
            biases = np.apply_along_axis(lambda b, t=target, n=nodes: np.interp(t, n, b), axis, biases)
        return np.reshape(biases, (-1, self.num_heads)).astype("float32")

    def macs(self):
        """Multiply-adds for one image."""
        _, height, width, channels = self.input.shape
        tokens = (height + self.padding[0]) * (width + self.padding[1])
        return tokens * 4 * channels**2 + 2 * tokens * self.window[0] * self.window[1] * channels

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "window_size": self.window_size,
            "shifted": self.shifted,
        }


@keras.saving.register_keras_serializable("kvision")
class CosineWindowAttention(WindowAttention):
    """`WindowAttention` by cosines, with biases that a small network computes from the distances.

    The cosine of query and key is scaled by a trained `logit_scale` of each head. The distances enter the
    small network by their logarithm, in shares of the window that the network was trained with.

    Args:
        num_heads, window_size, shifted: see `WindowAttention`.
        trained_window_size: height and width of the windows of the training, in tokens; None for these.
    """

    def __init__(self, num_heads, window_size=8, shifted=False, trained_window_size=None, **keywords):
        super().__init__(num_heads, window_size, shifted, **keywords)
        self.trained_window_size = trained_window_size

    def _build_weights(self, channels):
        ones = keras.initializers.Constant(math.log(10))
        self.logit_scale = self.add_weight(shape=(self.num_heads, 1, 1), initializer=ones, name="logit_scale")
        self.q_bias, self.v_bias = (
            self.add_weight(shape=(channels,), initializer="zeros", name=name)
            for name in ("q_bias", "v_bias")
        )
        self.cpb_hidden, self.cpb_out, self.qkv, self.proj = (
            keras.layers.Dense(
                units,
                use_bias=use_bias,
                kernel_initializer=narrow_initializer(),
                dtype=self.dtype_policy,
                name=name,
            )
            for units, use_bias, name in (
                (512, True, "cpb_mlp.0"),
                (self.num_heads, False, "cpb_mlp.2"),
                (3 * channels, False, "qkv"),
                (channels, True, "proj"),
            )
        )
        self.cpb_hidden.build((None, 2))
        self.cpb_out.build((None, 512))
        self.qkv.build((None, channels))
        self.proj.build((None, channels))
        axes = []
        for side in self.window:
            distances = np.arange(1.0 - side, side)
            distances *= 8 / max(1, (self.trained_window_size or side) - 1)
            axes.append(np.sign(distances) * np.log2(np.abs(distances) + 1) / math.log2(8))
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        self.distances = grid.reshape(-1, 2).astype("float32")

    def _attend(self, x):
        tokens, channels = x.shape[1:]
        x = self.qkv(ops.reshape(x, (-1, channels)))
        q_bias, v_bias = (ops.cast(bias, x.dtype) for bias in (self.q_bias, self.v_bias))
        x = x + ops.concatenate([q_bias, ops.zeros((channels,), x.dtype), v_bias])
        x = ops.reshape(x, (-1, tokens, 3 * self.num_heads, channels // self.num_heads))
        q, k, v = ops.split(ops.transpose(x, (0, 2, 1, 3)), 3, axis=1)  # pyright: ignore
        scale = ops.exp(ops.minimum(self.logit_scale, math.log(100)))
        scores = ops.matmul(_unit(q) * ops.cast(scale, x.dtype), ops.transpose(_unit(k), (0, 1, 3, 2)))
        x = ops.matmul(ops.softmax(self._add_bias(scores), axis=-1), v)
        return self.proj(ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, channels)))

    def _biases(self):
        x = self.cpb_out(ops.relu(self.cpb_hidden(self.distances)))
        return 8 + 8 * ops.tanh(x / 2)  # 16 * sigmoid(x), in an operation that the TFLite converter folds

    def macs(self):
        """Multiply-adds for one image."""
        return super().macs() + len(self.distances) * 512 * (2 + self.num_heads)

    def get_config(self):
        return super().get_config() | {"trained_window_size": self.trained_window_size}


def _unit(x):
    """The vectors of the last axis with a length of 1."""
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    squares = ops.sum(ops.square(wide), axis=-1, keepdims=True)
    return ops.cast(wide * ops.rsqrt(ops.maximum(squares, 1e-24)), x.dtype)


def _nodes(source, target):
    """Positions of a table's entries, of `source` differences, among `target` differences (BEiT's code)."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (source // 2)) / (1 - ratio) > target // 2:
            high = ratio
        else:
            low = ratio
    distances = np.cumsum(ratio ** np.arange(source // 2))
    return np.concatenate([-distances[::-1], [0], distances])


def _roll(x, shifts):
    """Moves the map up and left by the shifts, what leaves it enters on the other side."""
    for axis, shift in enumerate(shifts, start=1):
        if shift:
            first, rest = ops.split(x, [shift % x.shape[axis]], axis=axis)  # pyright: ignore
            x = ops.concatenate([rest, first], axis=axis)
    return x
