"""Batch normalisation in one kernel where TensorFlow trains."""

import keras


@keras.saving.register_keras_serializable("kvision")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation (Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167), as Keras' own layer.

    Configuration, weights and results are those of `keras.layers.BatchNormalization`, which computes moments
    and normalises in separate operations. In training on TensorFlow, maps `(batch, height, width, channels)`
    go through one fused kernel instead (through cuDNN on a GPU). The moving variance stays Keras': it is that
    of the batch, not of the population.

    Saved models hold `keras.layers.BatchNormalization` in its place, so Keras alone opens them. One that is
    read from a file trains with Keras' operations, to the same results.
    """

    @property
    def __class__(self):
        """The class that Keras serialises this layer as."""
        return keras.layers.BatchNormalization

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._fuses(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else tf.ones(channels),
            offset=self.beta if self.center else tf.zeros(channels),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        variance *= (count - 1) / count  # the kernel gives the population's
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + of_batch * (1 - self.momentum))
        return outputs

    def _fuses(self, inputs) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.variable_dtype == "float32"
            and inputs.dtype in ("float32", "float16", "bfloat16")
            and not self.synchronized
            and not getattr(self, "renorm", False)  # which older Keras lacks
        )
