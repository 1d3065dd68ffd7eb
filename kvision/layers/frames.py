"""Frames of videos as images, and answers for frames as one answer."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class FoldFrames(keras.layers.Layer):
    """Videos `(batch, frames, ...)` as images `(batch * frames, ...)`."""

    def call(self, x):
        return ops.reshape(x, (-1, *ops.shape(x)[2:]))

    def compute_output_shape(self, shape):
        return (None, *shape[2:])


@keras.saving.register_keras_serializable("kvision")
class UnfoldFrames(keras.layers.Layer):
    """Vectors of images, `(batch * frames, channels)`, as those of videos, `(batch, frames, channels)`.

    Args:
        frames: of a video.
    """

    def __init__(self, frames, **keywords):
        super().__init__(**keywords)
        self.frames = frames

    def call(self, x):
        return ops.reshape(x, (-1, self.frames, x.shape[-1]))

    def compute_output_shape(self, shape):
        return (None, self.frames, shape[-1])

    def get_config(self):
        return super().get_config() | {"frames": self.frames}


@keras.saving.register_keras_serializable("kvision")
class LogMeanProbability(keras.layers.Layer):
    """The logarithm of the mean of several softmaxes, of which a softmax gives that mean.

    Input: logits `(batch, frames, classes)`; output: float32 `(batch, classes)`, computed in float32 under
    any policy but float64.
    """

    def __init__(self, **keywords):
        super().__init__(autocast=False, **keywords)

    def call(self, x):
        x = ops.log_softmax(ops.cast(x, self._wide(x.dtype)), axis=-1)
        return ops.logsumexp(x, axis=1) - ops.log(ops.cast(x.shape[1], x.dtype))

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], x.shape[-1]), self._wide(x.dtype))

    @staticmethod
    def _wide(dtype):
        return keras.backend.result_type(dtype, "float32")
