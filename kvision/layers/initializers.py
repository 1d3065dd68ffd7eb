"""How weights start."""

import keras


def he_initializer(mode="fan_out"):
    """He initialisation; by fan-out as in EfficientNet's released code and in torchvision, or by "fan_in".

    Uniform instead of normal, of the same variance: drawn in a third of the time. A new one for each
    layer: an initializer draws its seed once, when it is made.
    """
    return keras.initializers.VarianceScaling(2.0, mode, "uniform")


def narrow_initializer():
    """Standard deviation 0.02, as in the released code of transformers and ConvNeXt; uniform as above."""
    return keras.initializers.RandomUniform(-0.02 * 3**0.5, 0.02 * 3**0.5)
