"""Local response normalisation (Krizhevsky et al. 2012, section 3.3)."""

import keras
import numpy as np
from keras import ops

from kvision.errors import UserError


@keras.saving.register_keras_serializable("kvision")
class LocalResponseNormalization(keras.layers.Layer):
    """x / (k + alpha * s) ** beta, where s is the sum of x ** 2 over neighbouring channels.

    Input and output: `(batch, height, width, channels)`. The sum is taken in float32 or wider.

    Args:
        size: how many channels the sum spans, centred on the channel itself; odd.
        alpha: factor of the sum, as in the paper and in `tf.nn`. Caffe and PyTorch divide theirs by `size`.
        beta: exponent.
        k: added to the sum.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=2.0, **keywords):
        super().__init__(**keywords)
        if size % 2 == 0:
            raise UserError(f"`size` must be odd; got {size}.")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, x):
        places = np.arange(x.shape[-1])
        near = np.abs(places - places[:, None]) <= self.size // 2
        squares = ops.square(ops.cast(x, keras.backend.result_type(x.dtype, "float32")))
        sums = ops.conv(
            squares, ops.convert_to_tensor(near[None, None], squares.dtype), data_format="channels_last"
        )
        factors = ops.exp(-self.beta * ops.log(self.k + self.alpha * sums))  # faster than a power on CPUs
        return x * ops.cast(factors, x.dtype)

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return super().get_config() | {
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
        }
