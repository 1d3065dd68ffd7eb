"""Weight standardisation (Qiao et al. 2019, https://arxiv.org/abs/1903.10520)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class StandardizedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose kernels have mean 0 and variance 1 in each output channel.

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, *arguments, epsilon=1e-6, **keywords):
        super().__init__(*arguments, **keywords)
        self.epsilon = epsilon

    def call(self, inputs):
        kernel = ops.cast(self.kernel, keras.backend.result_type(self.variable_dtype, "float32"))
        mean = ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = ops.var(kernel, axis=(0, 1, 2), keepdims=True)
        kernel = (kernel - mean) * ops.rsqrt(variance + self.epsilon)
        x = self.convolution_op(inputs, ops.cast(kernel, self.compute_dtype))
        if self.use_bias:
            x = ops.add(x, self.bias)
        return self.activation(x)

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon}
