"""Rounding of weights by what their layers are given."""

import functools

import keras
import numpy as np
import pytest
from tflite import images

from kvision_export import flatbuffer
from kvision_export.convert import convert
from kvision_export.rounding import POSITIONS, _round, _windows, round_kernel
from kvision_export.runner import predict

FULL = functools.partial(keras.layers.Conv2D, 4)


def convolution(kind, size=9, **keywords):
    """A file of a convolution alone."""
    inputs = keras.Input((size, size, 3))
    content = convert(
        keras.Model(inputs, kind(kernel_size=3, bias_initializer="uniform", **keywords)(inputs))
    )
    model = flatbuffer.read(content)
    (operator,) = model.subgraphs[0].operators
    kernel, bias = (flatbuffer.constant(model, i) for i in operator.inputs[1:3])
    return content, operator, kernel, bias


@pytest.mark.parametrize(
    "keywords",
    [{"padding": "same"}, {"padding": "valid"}, {"strides": 2, "padding": "same"}, {"strides": 3},
     {"strides": 2, "padding": "same", "size": 8}],
)  # fmt: skip
@pytest.mark.parametrize(
    ("kind", "product"),
    [(FULL, "nhwc,ohwc->no"), (keras.layers.DepthwiseConv2D, "nhwc,ohwc->nc")],
    ids=["full", "depthwise"],
)
def test_windows_are_what_a_kernel_meets(keywords, kind, product):
    content, operator, kernel, bias = convolution(kind, **keywords)
    image = images(1, size=keywords.get("size", 9))
    windows = _windows(image, operator, kernel.shape)
    found = np.einsum(product, windows, kernel) + bias
    np.testing.assert_allclose(found, predict(content, image)[0].reshape(found.shape), rtol=1e-4, atol=1e-3)


def test_windows_of_many_regions_are_a_sample():
    """A layer behind the crops of R-CNN is given hundreds for each image."""
    _, operator, kernel, _ = convolution(FULL)
    regions = images(400, size=9)
    windows = _windows(regions, operator, kernel.shape)
    assert POSITIONS / 2 < len(windows) <= POSITIONS
    np.testing.assert_array_equal(windows[-49:], _windows(regions[380:381], operator, kernel.shape))


def test_what_one_weight_is_off_the_next_make_good():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1000, 8)) @ random.normal(size=(8, 80))  # that go together
    weights = random.uniform(-100, 100, (5, 80))
    integers = _round(weights, np.cov(inputs.T))
    np.testing.assert_array_equal(integers, np.round(integers))
    assert np.abs(integers - weights).max() > 1

    def error(found):
        return np.var((found - weights) @ inputs.T, -1).mean()

    assert error(integers) < error(np.round(weights)) / 10
    np.testing.assert_array_equal(_round(weights, np.eye(80)), np.round(weights))
    assert np.abs(_round(10 * weights, np.cov(inputs.T))).max() == 127


def test_inputs_that_never_change():
    _, operator, kernel, _ = convolution(FULL)
    scaled = 100 * kernel
    for value in (0, 1e4):
        same = [np.full((1, 9, 9, 3), value, "float32")] * 2
        np.testing.assert_array_equal(round_kernel(scaled, operator, same, False), np.round(scaled))
