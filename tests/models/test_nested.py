"""Networks that are layers of other models."""

import keras
import numpy as np
import pytest
from helpers import tiny

import kvision
from kvision.analysis import macs
from kvision.errors import UserError

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")


def functional(network):
    inputs = keras.Input((64, 64, 3))
    return keras.Model(inputs, keras.layers.Dense(3)(network(keras.layers.Rescaling(0.5)(inputs))))


AROUND = {
    "sequential": lambda network: keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Rescaling(0.5), network, keras.layers.Dense(3)]
    ),
    "functional": functional,
    "twice": lambda network: keras.Sequential([functional(network), keras.layers.Dense(2)]),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_taps_are_found_in_a_network_inside(around):
    network = tiny("deit_tiny_distilled", name="inner")
    model = around(network)
    inside = kvision.features(network, ["c4"])(PIXELS / 2)["c4"]
    np.testing.assert_array_equal(kvision.features(model, ["c4"])(PIXELS)["c4"], inside)
    np.testing.assert_array_equal(
        kvision.attention_maps(model)(PIXELS), kvision.attention_maps(network)(PIXELS / 2)
    )
    with pytest.raises(UserError, match="has no tap 'c9'. Did you mean 'c4'"):
        kvision.features(model, ["c9"])
    with pytest.raises(UserError, match="in the network 'inner', which is a layer of it: pass that"):
        kvision.depth_groups(model)


def test_what_is_not_told_apart_is_refused():
    one, other = (
        tiny("mobilenet_v1", include_top=False, pooling="avg", name=name) for name in ("one", "other")
    )
    left, right = (keras.Input((64, 64, 3)) for _ in range(2))
    with pytest.raises(UserError, match="contains several networks: pass one of 'one', 'other'"):
        kvision.features(keras.Model([left, right], keras.layers.Add()([one(left), other(right)])))
    siamese = keras.Model([left, right], keras.layers.Subtract()([one(left), one(right)]))
    with pytest.raises(UserError, match="does not call 'one' once .* pass the network itself"):
        kvision.features(siamese)
    with pytest.raises(UserError, match="only networks of kvision have them"):
        kvision.features(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))


def test_multiply_adds_of_a_network_inside_count():
    network = tiny("mobilenet_v1", include_top=False, pooling="avg")
    model = keras.Sequential([network, keras.layers.Dense(3)])
    assert macs(model) == macs(network) + 3 * network.output_shape[-1]
    transposed = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2DTranspose(4, 3, name="up")])
    with pytest.raises(UserError, match="multiply-adds of Conv2DTranspose 'up' are not known"):
        macs(transposed)
