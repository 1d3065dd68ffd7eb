"""Images with their channels in the opposite order."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class ReverseChannels(keras.layers.Layer):
    """RGB to BGR, in which OpenCV reads images, or back. `(batch, height, width, channels)`."""

    def call(self, x):
        return ops.flip(x, -1)

    def compute_output_shape(self, shape):
        return shape
