"""Initializers of weights."""

import keras
import numpy as np


def he_initializer(mode="fan_out"):
    """He initialisation; by fan-out as in EfficientNet's released code and in torchvision, or by "fan_in".

    Uniform instead of normal, of the same variance: drawn in a third of the time. A new one for each
    layer: an initializer draws its seed once, when it is made.
    """
    return keras.initializers.VarianceScaling(2.0, mode, "uniform")


def narrow_initializer():
    """Standard deviation 0.02, as in the released code of transformers and ConvNeXt; uniform as above."""
    return keras.initializers.RandomUniform(-0.02 * 3**0.5, 0.02 * 3**0.5)


@keras.saving.register_keras_serializable("kvision")
class Bilinear(keras.initializers.Initializer):
    """Kernels of a `Conv2DTranspose` that interpolates each channel bilinearly.

    With kernels of twice the strides and "same" padding, it is `ResizeLike` to the larger size, but for the
    border, beyond which it takes zeros (Long et al. 2015, https://arxiv.org/abs/1411.4038, section 3.3).
    """

    def __call__(self, shape, dtype=None):
        height, width, filters, channels = shape
        kernel = np.zeros(shape)
        for i in range(min(filters, channels)):
            kernel[:, :, i, i] = np.outer(_triangle(height), _triangle(width))
        return keras.ops.convert_to_tensor(kernel, dtype or keras.config.floatx())


def _triangle(size):
    """The weights of linear interpolation by (size + 1) // 2."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor
