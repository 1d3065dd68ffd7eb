"""Private interfaces of Keras do what `kvision.keras_internals` says."""

import keras
import numpy as np
import pytest

from kvision import keras_internals


def test_graphs():
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4, name="dense")
    first = dense(inputs)
    second = dense(first)
    inside = keras.Model(inputs, second, name="inside")
    outer = keras.Sequential([keras.Input((4,)), inside, keras.layers.ReLU(name="relu")], name="outer")
    operation, call, output = keras_internals.producer(second)
    assert operation is dense
    assert output == 0
    assert keras_internals.inputs_of(dense, call)[0] is first
    assert len(keras_internals.calls(dense)) == 2
    assert {"outer", "inside", "dense", "relu"} <= {layer.name for layer in keras_internals.all_layers(outer)}


def stepped(change=lambda optimizer: None, **keywords):
    """The decrease by a step of SGD of two variables of 1 whose gradients are 1."""
    variables = [keras.Variable(np.ones(1, "float32"), name=name) for name in ("a", "b")]
    optimizer = keras.optimizers.SGD(0.5, **keywords)
    optimizer.build(variables)
    change(optimizer)
    optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)], variables)
    return [1 - float(variable[0]) for variable in variables]


def test_updates_and_their_weight_decay_are_scaled_by_variable():
    assert stepped() == [0.5, 0.5]
    assert stepped(lambda optimizer: keras_internals.scale_updates(optimizer, (1, 0.25).__getitem__)) == [
        0.5,
        0.125,
    ]
    decayed = stepped(
        lambda optimizer: keras_internals.scale_updates(optimizer, (1, 0.5).__getitem__), weight_decay=0.1
    )
    assert decayed == pytest.approx([0.5 + 0.05, 0.25 + 0.025])


def test_the_learning_rate_is_scaled_also_when_it_is_set_later():
    factor = keras.Variable(0.5)

    def change(optimizer):
        keras_internals.scale_learning_rate(optimizer, factor)
        optimizer.learning_rate = 0.25

    assert stepped(change) == [0.125, 0.125]


def test_gradients_are_not_summed_again():
    optimizer = keras.optimizers.SGD(0.5)
    assert callable(optimizer._all_reduce_sum_gradients)
    keras_internals.leave_gradients(optimizer)
    assert optimizer._all_reduce_sum_gradients([("gradient", "variable")]) == [("gradient", "variable")]
