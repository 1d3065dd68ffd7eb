"""Models that are layers of other models, as `keras.Sequential([backbone, classifier])` has them."""

import reprlib
from collections.abc import Callable

import keras

from kvision.errors import UserError
from kvision.keras_internals import inputs_of, producer


def check_model(model, key: str = "model") -> None:
    """Raises a UserError unless the argument is a `keras.Model`."""
    if not isinstance(model, keras.Model):
        raise UserError(f"`{key}` must be a `keras.Model`; got {reprlib.repr(model)}.")


def networks(model: keras.Model, fits: Callable[[keras.Model], object]) -> list[keras.Model]:
    """The outermost models that fit: the model itself, or those among its layers and the layers of these."""
    check_model(model)
    if fits(model):
        return [model]
    inside = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return [network for layer in inside for network in networks(layer, fits)]


def part_of(
    model: keras.Model, fits: Callable[[keras.Model], object], make: Callable[[keras.Model], keras.Model]
) -> keras.Model:
    """`make` of the one network in a model that fits, from the model's own input.

    Args:
        model: a model that fits itself or has one network that does, at any depth.
        fits: whether `make` can be called.
        make: from a network to a model with the same input.

    Raises:
        ValueError: several networks fit, or the model's graph does not show what the network is called on.
    """
    if fits(model):
        return make(model)
    inside = networks(model, fits)
    names = ", ".join(repr(network.name) for network in inside)
    if len(inside) != 1:
        raise UserError(f"{model.name} contains several networks: pass one of {names}.")
    layer = next(layer for layer in model.layers if isinstance(layer, keras.Model) and networks(layer, fits))
    calls = _calls(model, layer)
    if len(calls) != 1:
        raise UserError(
            f"{model.name} does not call {names} once in a functional graph: pass the network itself, such as"
            f" {model.name}.get_layer({layer.name!r})."
        )
    part = part_of(layer, fits, make)
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.input
    return keras.Model(inputs, part(calls[0]), name=part.name)


def _calls(model, layer) -> list:
    """The inputs of each call of a layer in a model's graph."""
    seen, calls, todo = set(), [], list(getattr(model, "outputs", None) or ())
    while todo:
        operation, index, _ = producer(todo.pop())
        if (operation, index) in seen:
            continue
        seen.add((operation, index))
        tensors = inputs_of(operation, index)
        if operation is layer:
            calls.append(tensors[0])
        todo += tensors
    return calls
