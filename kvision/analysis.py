"""What a network costs, counted from its layers."""

import math

import keras

from kvision.errors import UserError


def macs(model: keras.Model) -> int:
    """Multiply-adds for one image: of convolutions, dense layers and attention, as timm counts them.

    Args:
        model: with an input of fixed size.

    Raises:
        ValueError: the model's image size is not fixed.
    """
    if None in model.input_shape[1:]:
        raise UserError(f"{model.name} has no fixed image size: {model.input_shape}.")
    return sum(_macs(layer) for layer in model.layers)


def _macs(layer) -> int:
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
    return layer.macs() if hasattr(layer, "macs") else 0
