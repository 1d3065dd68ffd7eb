"""Grouped convolution (Krizhevsky et al. 2012, section 3.5)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with `groups`, trained at a bearable speed on CPUs.

    TensorFlow's gradient of a grouped convolution on a CPU takes some hundred times as long as the
    gradients of its groups one by one. So training on a CPU convolves the groups apart; inference,
    export and training on other devices are one operation. The weights are the same.
    """

    def call(self, inputs, training=None):
        if not training or _accelerated():
            return super().call(inputs)
        groups = zip(
            ops.split(inputs, self.groups, axis=-1), ops.split(self.kernel, self.groups, axis=-1), strict=True
        )
        x = ops.concatenate([self.convolution_op(part, kernel) for part, kernel in groups], axis=-1)
        if self.use_bias:
            x = ops.add(x, self.bias)
        return self.activation(x)


def _accelerated():
    return any(not device.lower().startswith("cpu") for device in keras.distribution.list_devices())
