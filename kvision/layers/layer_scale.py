"""LayerScale (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

import keras


@keras.saving.register_keras_serializable("kvision")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a trained factor `gamma`.

    Input and output: a float tensor `(..., channels)`.

    Args:
        value: of all factors at the start.
    """

    def __init__(self, value=1e-6, **keywords):
        super().__init__(**keywords)
        self.value = value

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.value), name="gamma"
        )

    def call(self, x):
        return x * self.gamma

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return super().get_config() | {"value": self.value}
