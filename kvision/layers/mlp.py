"""The feed-forward network of Transformers (Vaswani et al. 2017, section 3.3; Dosovitskiy et al. 2020)."""

import math

import keras
from keras import ops

from kvision.layers.initializers import narrow_initializer


@keras.saving.register_keras_serializable("kvision")
class MLP(keras.layers.Layer):
    """Two dense layers, `fc1` and `fc2`, with an activation between; as many channels out as in.

    Input and output: `(batch, ..., channels)`. Computed on rows of channels: TensorFlow then fuses the
    product, the bias and the activation.

    Args:
        units: of the first dense layer.
        dropout_rate: behind the activation.
        activation: a Keras activation by name; GELU is the exact one.
    """

    def __init__(self, units, dropout_rate=0.0, activation="gelu", **keywords):
        super().__init__(**keywords)
        self.units, self.dropout_rate, self.activation = units, dropout_rate, activation
        self.dropout = keras.layers.Dropout(dropout_rate) if dropout_rate else None

    def build(self, input_shape):
        channels = input_shape[-1]
        shared = {"dtype": self.dtype_policy}
        self.fc1 = keras.layers.Dense(
            self.units, kernel_initializer=narrow_initializer(), name="fc1", **shared
        )
        self.fc2 = keras.layers.Dense(channels, kernel_initializer=narrow_initializer(), name="fc2", **shared)
        self.fc1.build((None, channels))
        self.fc2.build((None, self.units))

    def call(self, x, training=None):
        shape = (-1, *x.shape[1:])
        activate = keras.activations.get(self.activation)
        x = activate(self.fc1(ops.reshape(x, (-1, x.shape[-1]))))
        if self.dropout:
            x = self.dropout(x, training=training)
        return ops.reshape(self.fc2(x), shape)

    def compute_output_shape(self, shape):
        return shape

    def macs(self):
        """Multiply-adds for one image."""
        return 2 * math.prod(self.input.shape[1:]) * self.units

    def get_config(self):
        own = {"units": self.units, "dropout_rate": self.dropout_rate, "activation": self.activation}
        return super().get_config() | own
