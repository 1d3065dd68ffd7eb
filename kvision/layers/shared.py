"""Layers of one model in the graph of another."""

import keras


@keras.saving.register_keras_serializable("kvision")
class Shared(keras.layers.Wrapper):
    """A layer that another model holds, with its weights.

    A layer of its own, because a call of the layer itself would be written into the other model's graph too.

    Args:
        layer: that is called; it is built.
        method: of the layer, that is called in its place.
    """

    def __init__(self, layer, method="__call__", **keywords):
        super().__init__(layer, **keywords)
        self.method = method

    def build(self, input_shape):
        pass

    def call(self, x, state=None):
        call = getattr(self.layer, self.method)
        return call(x) if state is None else call(x, state)

    def get_config(self):
        return super().get_config() | {"method": self.method}
