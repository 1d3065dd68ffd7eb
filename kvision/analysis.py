"""The costs of a network, counted from its layers."""

import math

import keras

from kvision.errors import UserError


def macs(model: keras.Model) -> int:
    """Multiply-adds for one image: of convolutions, dense layers and attention, as timm counts them.

    Args:
        model: with one input of fixed size; networks that are layers of it count too.

    Raises:
        ValueError: the model's image size is not fixed, or it has layers that cannot be counted.
    """
    if len(model.inputs) != 1 or None in model.input_shape[1:]:
        raise UserError(f"{model.name} has no single input of fixed size: {model.input_shape}.")
    return sum(_macs(layer) for layer in model.layers)


def _macs(layer) -> int:
    if isinstance(layer, keras.Model):
        return macs(layer)
    if hasattr(layer, "macs"):
        return layer.macs()
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
    if any(weight.name.endswith("kernel") for weight in layer.weights):
        raise UserError(f"The multiply-adds of {type(layer).__name__} {layer.name!r} are not known.")
    return 0
