"""Anchors and pooled regions are torchvision's."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from helpers import mostly_slow
from tflite import operators

from kvision.layers import AnchorBoxes, DefaultBoxes, RoIAlign, RoIPool, SpatialPyramidPooling
from kvision_export.convert import convert

THEIRS = np.load(Path(__file__).parents[1] / "reference" / "regions.npz")
MAPS = [THEIRS[f"map{level}"] for level in range(3)]
BOXES = THEIRS["boxes"]
INSIDE = BOXES[:, :-2]
IMAGE = np.zeros((2, 150, 190, 3), "float32")
STRIDES = (4, 8, 16)
LAYERS = {
    "align": (RoIAlign(strides=(16,)), [MAPS[2]], BOXES),
    "align_aligned": (RoIAlign(strides=(16,), aligned=True), [MAPS[2]], BOXES),
    "align_three_samples": (RoIAlign(strides=(16,), sampling_ratio=3), [MAPS[2]], BOXES),
    "align_levels": (RoIAlign(strides=STRIDES), MAPS, BOXES),
    "pool": (RoIPool(7, stride=16), MAPS[2], INSIDE),
    "pool_fine": (RoIPool(3, stride=4), MAPS[0], INSIDE),
    "anchors": (AnchorBoxes([[32], [64], [128, 256]]), MAPS, IMAGE),
    "default_boxes": (DefaultBoxes((0.2, 0.575, 0.95, 1.0)), MAPS, IMAGE),
}


FINER = ("align_aligned", "align_three_samples", "pool_fine")  # other numbers of the same layers


@pytest.mark.parametrize("name", mostly_slow(LAYERS, *(LAYERS.keys() - FINER)))
def test_regions_and_anchors_are_torchvisions(name):
    layer, *inputs = LAYERS[name]
    expected = THEIRS[name]
    if expected.ndim == 2:
        expected = np.stack([expected] * 2)
    np.testing.assert_allclose(layer(*inputs), expected, rtol=1e-5, atol=2e-5)
    layer = type(layer).from_config(layer.get_config())

    def symbolic(x, fixed):
        shape = x.shape[1:] if fixed or x.shape[-1] == 4 else (None, None, x.shape[-1])
        return keras.Input(shape)

    for fixed in (True, False):
        inputs_of = keras.tree.map_structure(lambda x, fixed=fixed: symbolic(x, fixed), inputs)
        model = keras.Model(inputs_of, layer(*inputs_of))
        specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs_of)
        outputs = tf.function(model, input_signature=[specs], autograph=False)(inputs)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=2e-5)
        assert all(
            size in (None, known) for size, known in zip(model.output_shape, outputs.shape, strict=True)
        )
        assert None not in model.output_shape[1:] or not fixed


@pytest.mark.slow
def test_files_have_built_in_operators_and_agree():
    """All layers in one file, and what they are given in its one input."""
    given = [*MAPS, BOXES, INSIDE, IMAGE]
    flat = [x[0].ravel() for x in given]
    ends = np.cumsum([x.size for x in flat])
    values = keras.Input((ends[-1],), name="image")
    parts = keras.ops.split(values, ends[:-1].tolist(), 1)
    parts = {id(x): keras.ops.reshape(part, (-1, *x.shape[1:])) for x, part in zip(given, parts, strict=True)}
    outputs = {
        name: layer(*keras.tree.map_structure(lambda x: parts[id(x)], inputs))
        for name, (layer, *inputs) in LAYERS.items()
    }
    content = convert(keras.Model(values, outputs))
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    found = Interpreter(model_content=content).get_signature_runner()(image=np.concatenate(flat)[None])
    assert found.keys() == LAYERS.keys()
    for name, values in found.items():
        expected = THEIRS[name] if THEIRS[name].ndim == 2 else THEIRS[name][0]
        np.testing.assert_allclose(values[0], expected, rtol=1e-5, atol=1e-4, err_msg=name)


def test_pyramid_bins_reach_beyond_each_other_where_they_must():
    x = MAPS[2]  # 10 x 12
    pooled = np.asarray(SpatialPyramidPooling((3, 1))(x))
    rows, columns = [(0, 4), (3, 7), (6, 10)], [(0, 4), (4, 8), (8, 12)]
    expected = [x[:, a:b, c:d].max((1, 2)) for a, b in rows for c, d in columns] + [x.max((1, 2))]
    np.testing.assert_array_equal(pooled, np.stack(expected, 1))
    dynamic = keras.Input((None, None, 3))
    model = keras.Model(dynamic, SpatialPyramidPooling((3, 1))(dynamic))
    assert model.output_shape == (None, 10, 3)
    specs = [tf.TensorSpec((None, None, None, 3))]
    function = tf.function(model, input_signature=specs, autograph=False)
    np.testing.assert_array_equal(function(x), pooled)


@pytest.mark.parametrize("name", ["align", "align_levels", "pool"])
def test_regions_have_gradients_for_all_maps(name):
    layer, maps, boxes = LAYERS[name]
    variables = [tf.Variable(x) for x in keras.tree.flatten(maps)]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(keras.tree.pack_sequence_as(maps, variables), boxes) ** 2)
    assert all(np.any(tf.convert_to_tensor(gradient)) for gradient in tape.gradient(loss, variables))
