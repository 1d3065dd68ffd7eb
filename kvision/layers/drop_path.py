"""Stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382)."""

import keras


@keras.saving.register_keras_serializable("kvision")
class DropPath(keras.layers.Dropout):
    """Drops whole samples of a residual branch, and scales the others by 1 / (1 - rate).

    Args:
        rate: probability in [0, 1) that a sample's branch is dropped.
        seed: integer seed, or None.

    Input and output: a float tensor of any shape `(batch, ...)`. The identity at inference.
    """

    def __init__(self, rate, seed=None, **keywords):
        super().__init__(rate, seed=seed, **keywords)

    def build(self, input_shape):
        self.noise_shape = (None,) + (1,) * (len(input_shape) - 1)
        super().build(input_shape)

    def get_config(self):
        config = super().get_config()
        del config["noise_shape"]  # follows from the input's rank
        return config
