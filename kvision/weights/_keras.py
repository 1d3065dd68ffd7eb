"""Weights of keras.applications."""

import math
import re
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from kvision.errors import UserError
from kvision.weights._parameters import NORMS, first_convolution, parameters

SAME = {"depthwise_kernel": "kernel", "pointwise_kernel": "kernel", "variable": "gamma"}  # theirs, ours


def tensors_of(model: keras.Model, keras_model: keras.Model) -> Mapping[str, np.ndarray]:
    """The weights of a network of keras.applications under the names and in the layout of ours.

    The layers of both are taken in the order in which their graphs reach them.

    Raises:
        ValueError: it is another network.
    """
    ours, theirs = (
        [
            (layer, variable)
            for layer in _layers(network)
            if not isinstance(layer, keras.layers.Normalization)
            for variable in layer.weights
        ]
        for network in (model, keras_model)
    )
    first = first_convolution(model)
    reasons = (_difference(*our, *their, our[0] is first) for our, their in zip(ours, theirs, strict=False))
    if reason := next(filter(None, reasons), None) or _surplus(ours, theirs):
        raise UserError(
            f"keras.applications' {keras_model.name} is another network than {model.name}: {reason}."
        )
    values = {}
    for (our, variable), (_, value) in zip(ours, theirs, strict=True):
        shape = tuple(variable.shape)
        if math.prod(shape) != math.prod(value.shape):  # other classes or channels, to which `load` adapts
            shape = (*shape[:-1], value.shape[-1]) if isinstance(our, keras.layers.Dense) else value.shape
        values[variable.path] = np.reshape(value, shape)
    return {
        name: np.transpose(values[variable.path], axes)
        for name, (variable, axes, _) in parameters(model).items()
    }


def _layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """A network's layers, those of the networks in it too (ConvNeXt's stem is one)."""
    for layer in network.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else (layer,)


def _surplus(ours, theirs) -> str | None:
    """The layer from which on one of two networks has more weights, in words; None where neither has."""
    whose, more = ("ours", ours[len(theirs) :]) if len(ours) > len(theirs) else ("it", theirs[len(ours) :])
    return f"{whose} has more weights, from {more[0][0].name} on" if more else None


def _difference(our, variable, their, value, first: bool) -> str | None:
    """Reason why two layers cannot be the same; None where they may be.

    Classifiers may have different classes, the first convolution different channels.
    """
    last, their_last = (re.sub(r".*/|_\d+$", "", v.path) for v in (variable, value))
    if last != SAME.get(their_last, their_last):
        return f"its {value.path} stands where ours has {variable.path}"
    if isinstance(our, NORMS) and not math.isclose(our.epsilon, their.epsilon, rel_tol=1e-6):
        return f"its norms were trained with norm_epsilon={their.epsilon}, ours have {our.epsilon}"
    if hasattr(our, "strides") and our.strides != getattr(their, "strides", our.strides):
        return f"its {their.name} has strides {their.strides}, {our.name} has {our.strides}"
    ours, theirs = (tuple(v.shape) for v in (variable, value))
    if isinstance(our, keras.layers.Dense):
        ours, theirs = ours[:-1], theirs[:-1]
    elif first and len(ours) == 4:
        ours, theirs = (*ours[:2], ours[3]), (*theirs[:2], theirs[3])
    if math.prod(ours) != math.prod(theirs):
        return f"its {value.path} is {tuple(value.shape)}, ours {tuple(variable.shape)}"
    return None
