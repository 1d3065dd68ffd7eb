"""Global response normalisation (Woo et al. 2023, https://arxiv.org/abs/2301.00808)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class GlobalResponseNormalization(keras.layers.Layer):
    """Scales each channel by its norm over all pixels against the mean norm of all channels.

    With G the L2 norm over height and width and N = G / (mean of G over channels + epsilon), the output
    is `weight * x * N + bias + x`; `weight` and `bias` start at 0 (section 3, algorithm 1).
    Input and output: `(batch, height, width, channels)`.

    Args:
        epsilon: added to the mean norm.
    """

    def __init__(self, epsilon=1e-6, **keywords):
        super().__init__(**keywords)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="weight")
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, x):
        wide = keras.backend.result_type(x.dtype, "float32")
        squares = ops.sum(ops.square(ops.cast(x, wide)), axis=(1, 2), keepdims=True)
        norms = ops.sqrt(ops.maximum(squares, 1e-12))  # a finite gradient where a channel is all 0
        norms = norms / (ops.mean(norms, axis=-1, keepdims=True) + self.epsilon)
        return self.weight * (x * ops.cast(norms, x.dtype)) + self.bias + x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon}
