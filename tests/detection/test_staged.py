"""R-CNN and SPPNet: their networks, and what their stages learn."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import built_without_memory
from PIL import Image
from tflite import images

import kvision
from kvision import detection
from kvision.detection._faster_rcnn_loss import SampledRegions
from kvision.detection._stages import RCNN, SPPNET
from kvision.layers import RoIPyramidPool, RoIWarp, SpatialPyramidPooling

TINY = {
    "rcnn_alexnet": {"crop_size": 67, "width_multiplier": 0.125, "hidden_filters": 32},
    "sppnet_zf5": {"width_multiplier": 0.125, "hidden_filters": 32},
}
PIXELS = images(count=2, size=96)
PROPOSALS = np.zeros((2, 8, 4), "float32")
PROPOSALS[:, :4] = [(8, 8, 60, 52), (12, 6, 64, 50), (50, 40, 90, 90), (0, 0, 30, 40)]
OBJECTS = np.array([[(10, 8, 62, 50), (0, 0, 0, 0)], [(48, 42, 92, 88), (0, 0, 0, 0)]], "float32")
CLASSES = np.array([[1, -1], [0, -1]], "int32")
BATCH = {
    "image": PIXELS, "proposals": PROPOSALS, "boxes": OBJECTS, "classes": CLASSES,
    "crowd": np.zeros((2, 2), "uint8"), "weight": np.ones(2, "float32"),
}  # fmt: skip


def tiny(name, **keywords):
    columns = {"input_shape": (96, 96, 3), "num_classes": 3, "proposals": 8} | TINY[name]
    return kvision.create_model(name, **(columns | keywords))


def test_parameters():
    """Those of the papers' layers, with the classifier of fine-tuning."""
    alexnet = 60_965_224 - 4097 * 1000  # without ImageNet's classifier
    widths, kernels = (3, 96, 256, 384, 384, 256), (7, 5, 3, 3, 3)
    trunk = sum((k * k * a + 1) * b for k, (a, b) in zip(kernels, itertools.pairwise(widths), strict=True))
    zf5 = trunk + (50 * 256 + 1) * 4096 + 4097 * 4096
    for name, expected in (("rcnn_alexnet", alexnet), ("sppnet_zf5", zf5)):
        found = sum(math.prod(v.shape) for v in built_without_memory(name).trainable_variables)
        assert found == expected + 4097 * 21 == kvision.info(name).variant.params


def test_crops_are_pillows():
    """Enlarged regions with their context are Pillow's bilinear crops; outside of the image there is 0."""
    size, context, image = 40, 4, PIXELS[:1]
    box = (30.0, 20.0, 46.0, 36.0)  # 16 pixels to 32, so the crop reaches 2 pixels further
    (found,) = np.asarray(RoIWarp(size, context)(image, np.array([[box]], "float32")))[0]
    for channel in range(3):
        expected = Image.fromarray(image[0, ..., channel]).resize(
            (size, size), Image.Resampling.BILINEAR, box=(28, 18, 48, 38)
        )
        inner = slice(1, -1)  # Pillow sees nothing beyond the crop
        np.testing.assert_allclose(
            found[inner, inner, channel], np.asarray(expected)[inner, inner], atol=2e-3
        )
    (corner,) = np.asarray(RoIWarp(size, context)(image, np.array([[(0, 0, 16, 16)]], "float32")))[0]
    assert not corner[:3].any()
    assert not corner[:, :3].any()
    assert corner[5:, 5:].all()


def test_regions_have_the_pyramid_of_their_crop():
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 12, 14, 5)).astype("float32")
    boxes = np.array([[(16, 32, 16 * 9, 16 * 10), (0, 0, 16 * 13, 16 * 11)]], "float32")
    found = np.asarray(RoIPyramidPool(stride=16)(x, boxes))[0]
    for crop, pooled in zip((x[:, 2:11, 1:10], x), found, strict=True):
        np.testing.assert_array_equal(pooled, SpatialPyramidPooling()(crop)[0])


def test_the_convolutions_are_the_trunk():
    for name in TINY:
        *trunk, top = kvision.depth_groups(tiny(name))
        assert [len(group) for group in trunk] == [1] * 5
        assert {"classifier", "svm", "box_regressor"} < {*top}


def test_regions_of_fine_tuning():
    """The object and the proposals near it are positive; SPPNet's background overlaps an object by 0.1."""
    near = {(8, 8, 60, 52), (12, 6, 64, 50), (10, 8, 62, 50)}
    for settings, background in ((RCNN, {(50, 40, 90, 90), (0, 0, 30, 40)}), (SPPNET, {(0, 0, 30, 40)})):
        layer = SampledRegions(settings, 0)
        boxes, labels, _ = map(np.asarray, layer(PROPOSALS[:1], OBJECTS[:1], CLASSES[:1]))
        assert {tuple(box) for box in boxes[labels == 2]} == near
        assert {tuple(box) for box in boxes[labels == 0]} == background


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_stages_and_saving(name, tmp_path):
    keras.utils.set_random_seed(0)
    model, given = tiny(name), {"image": PIXELS, "proposals": PROPOSALS}
    trained = detection.with_losses(model)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            outputs = trained(given | {"true_boxes": OBJECTS, "true_classes": CLASSES})
            loss = tf.reduce_mean(outputs["class_loss"])
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    losses = [float(step()) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]
    assert detection.fit_stages(model, lambda: [BATCH])
    assert not detection.fit_stages(model, lambda: [BATCH])
    found = {key: np.asarray(part) for key, part in model(given).items()}
    assert model.get_layer("svm").kernel.numpy().any()
    model.save(tmp_path / "model.keras")
    for key, part in keras.saving.load_model(tmp_path / "model.keras")(given).items():
        np.testing.assert_array_equal(part, found[key])
    plain = tiny(name, weights=str(tmp_path / "model.keras"), num_classes=None, box_regression=False)
    answers = plain(given)
    boxes = np.asarray(answers["boxes"][0, : int(answers["count"][0])])
    assert {*map(tuple, boxes)} <= {*map(tuple, PROPOSALS[0])}
