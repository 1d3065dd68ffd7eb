"""Private interfaces of Keras where it has no public ones; tests/test_keras_internals.py tells of changes."""

from collections.abc import Callable, Iterable

import keras


def producer(tensor) -> tuple:
    """The operation that computed a symbolic tensor, the call of it that did, and the output's place."""
    history = tensor._keras_history
    return history.operation, history.node_index, history.tensor_index


def inputs_of(operation, call: int) -> list:
    """The symbolic tensors that a call of an operation was given."""
    return operation._inbound_nodes[call].input_tensors


def calls(operation) -> range:
    """The calls of an operation."""
    return range(len(operation._inbound_nodes))


def all_layers(model: keras.Model) -> Iterable[keras.layers.Layer]:
    """A model, its layers, and those inside them."""
    return model._flatten_layers()


def leave_gradients(optimizer: keras.optimizers.Optimizer) -> None:
    """Keeps an optimizer from summing gradients over replicas, which its caller has done."""
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs


def scale_learning_rate(optimizer: keras.optimizers.Optimizer, factor) -> None:
    """Multiplies the learning rate of each step, also one that a callback sets, by a variable."""
    rate = optimizer._get_current_learning_rate
    optimizer._get_current_learning_rate = lambda: rate() * factor


def scale_updates(optimizer: keras.optimizers.Optimizer, scale_of: Callable[[int], float]) -> None:
    """Multiplies the update and the weight decay of each variable, by its place in the optimizer.

    Methods are replaced on the instance, so that a saved model holds a plain Keras optimizer.
    """
    update_step = optimizer.update_step

    def scaled_step(gradient, variable, learning_rate):
        rate = learning_rate * scale_of(place(optimizer, variable))
        if optimizer.weight_decay and optimizer._use_weight_decay(variable):
            optimizer.assign_sub(variable, variable * optimizer.weight_decay * rate)
        update_step(gradient, variable, rate)

    optimizer.update_step = scaled_step
    optimizer._apply_weight_decay = lambda variables: None  # the step above does it


def place(optimizer: keras.optimizers.Optimizer, variable) -> int:
    """The place of a variable among those for which an optimizer was built."""
    return optimizer._get_variable_index(variable)
