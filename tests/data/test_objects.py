"""Boxes: in batches, moved with the pixels of their objects, and left out where they are wrong."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import mostly_slow
from masks import read

from kvision.choices import LETTERBOXES
from kvision.data import load, transforms
from kvision.data.images import unletterbox_boxes
from kvision.data.objects import Box, gather
from kvision.data.sources.shapes import draw
from kvision.data.transforms import AUGMENTATIONS, OTHERS, Frame
from kvision.errors import UserError

HOW = {"image_size": (64, 80), "target": "boxes"}


def iou(box, other):
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    overlap = np.prod(np.maximum(high - low, 0))
    return overlap / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - overlap)


def bounds(bright):
    """The box of the pixels that are `bright`."""
    rows, columns = np.nonzero(bright)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def corners(shape):
    return [shape.left, shape.top, shape.right, shape.bottom]


def drawn(seed, first):
    """The objects of a picture, whose classes are numbers from `first` on, and an image of each alone.

    It is white on black. Objects fill their boxes: so these are those of the pixels however they are cut.
    """
    shapes = draw(seed, first).shapes
    images = {}
    for number, shape in enumerate(shapes, first):
        images[number] = np.zeros((96, 128, 1), "uint8")
        images[number][shape.top : shape.bottom, shape.left + 20 : shape.right + 20] = 255
    objects = {
        "boxes": np.add([corners(shape) for shape in shapes], [20, 0, 20, 0]).astype("float32"),
        "classes": np.array([*images], "int32"),
        "crowd": np.zeros(len(shapes), "uint8"),
    }
    return images, {name: tf.constant(part) for name, part in objects.items()}


OTHER_AUGMENTATIONS = [name for name in AUGMENTATIONS if name not in ("mosaic_mixup", "scale_crop_flip")]


@pytest.mark.parametrize(
    ("augment", "letterbox"),
    [("flip", "corner"), ("mosaic_mixup", "centre"), ("none", "stretch"), ("scale_crop_flip", "centre")]
    + [pytest.param(augment, "centre", marks=pytest.mark.slow) for augment in OTHER_AUGMENTATIONS]
    + [pytest.param("none", "corner", marks=pytest.mark.slow)],
)
def test_boxes_are_those_of_the_pixels(augment, letterbox, monkeypatch):
    """Each object is moved alone: its box is that of the bright pixels; one without a box was cut off."""
    monkeypatch.setattr(transforms, "JITTER", 0.0)
    monkeypatch.setattr(Frame, "fill", 0.0)
    frame = Frame(size=(320, 400), channels=1, letterbox=letterbox, min_crop_area=0.2)
    threshold = 63 if augment == "mosaic_mixup" else 127
    move = tf.function(AUGMENTATIONS[augment], autograph=False, reduce_retracing=True)
    overlaps, absent = [], 0
    for seed in range(6 if augment in OTHERS else 10):
        pictures = [drawn(seed, first) for first in range(10, 10 * OTHERS.get(augment, 0) + 11, 10)]
        for number in [number for images, _ in pictures for number in images]:
            first, *others = (
                {"image": tf.constant(images.get(number, np.zeros((96, 128, 1), "uint8"))), **objects}
                for images, objects in pictures
            )
            seeds = (tf.constant(seed, tf.int64), tf.constant(3, tf.int64))
            moved = move(first | ({"others": others} if others else {}), seeds, frame)
            bright = moved["image"][..., 0].numpy() > threshold
            there = np.flatnonzero(moved["classes"].numpy() == number)
            if len(there):
                box, expected = moved["boxes"].numpy()[there[0]], bounds(bright)
                assert np.abs(box - expected).max() < 1.01
                if np.min(expected[2:] - expected[:2]) >= 20:
                    overlaps.append(iou(box, expected))
            else:
                absent += 1
                left, top, right, bottom = bounds(bright) if bright.any() else (0, 0, 0, 0)
                is_cut = left == 0 or top == 0 or right == 400 or bottom == 320
                assert is_cut or min(right - left, bottom - top) <= 3
    assert len(overlaps) > 15
    assert min(overlaps) > 0.9
    assert np.mean(overlaps) > 0.96
    assert (absent > 0) == (augment not in ("none", "flip"))


def test_batches_of_objects():
    """As the network sees them, and with `own_size` as the image has them, where detections go back to."""
    pictures = [draw(1, index, 128) for index in range(150)]
    most = max(len(picture.shapes) for picture in pictures)
    data = load("shapes", "val", batch_size=150, **HOW)
    assert data.class_names == ("circle", "square", "triangle")
    [seen] = read(data)
    assert seen.keys() == {"image", "weight", "boxes", "classes", "crowd"}
    for name, shape, dtype in (("boxes", (150, most, 4), "float32"), ("classes", (150, most), "int32")):
        assert (seen[name].shape, seen[name].dtype) == (shape, dtype)
    [own] = read(load("shapes", "val", batch_size=150, own_size=True, **HOW))
    assert own.keys() - seen.keys() == {"size", "area"}
    for place, picture in enumerate(pictures):
        expected = [corners(shape) for shape in picture.shapes]
        there = own["classes"][place] >= 0
        np.testing.assert_array_equal(own["boxes"][place][there], expected)
        np.testing.assert_array_equal(
            own["classes"][place][there], [shape.label - 1 for shape in picture.shapes]
        )
        assert not own["boxes"][place][~there].any()
    np.testing.assert_array_equal(own["area"], np.prod(own["boxes"][..., 2:] - own["boxes"][..., :2], -1))
    assert np.all(own["size"] == 128)
    for form in LETTERBOXES:
        [seen] = read(load("shapes", "val", batch_size=150, letterbox=form, **HOW))
        back = unletterbox_boxes(seen["boxes"], own["size"], HOW["image_size"], form)
        there = seen["classes"] >= 0
        np.testing.assert_allclose(back[there], own["boxes"][there], atol=1e-4)


@pytest.mark.parametrize("augment", mostly_slow(AUGMENTATIONS, "mosaic_mixup"))
def test_batches_of_objects_are_exact_under_resume_and_shards(augment):
    def batches(count, **keywords):
        data = load("shapes", "train", training=True, augment=augment, seed=5, **HOW | keywords)
        return read(data, count)

    whole = batches(4, batch_size=4)
    [resumed] = batches(1, batch_size=2, shard=(1, 2), start=4 * 3)
    for name, last in whole[3].items():
        np.testing.assert_array_equal(resumed[name], last[1::2])


def test_wrong_boxes_are_left_out(capsys):
    boxes = [
        Box(1, (2, 3, 8, 9), "cat"),
        Box(0, (5, 5, 4, 9), "cat"),
        Box(1, (5, 5, 5, 9), "dog"),
        Box(1, (20, 5, 30, 9), "dog"),
        Box(0, (1, 1, 2, 2), "cow"),
        Box(0, (float("nan"), 1, 2, 2), "cat"),
        Box(0, (-3, 1, 2, 12), "dog", True, 7.0),
        Box(2, (-0.05, 1, 2, 2), "dog"),
    ]
    places = {"cat": 0, "dog": 1}
    objects = gather(boxes, places, 4, "abcd".__getitem__, [(10, 20)] * 4)
    np.testing.assert_array_equal(objects.boxes, [[0, 1, 2, 10], [2, 3, 8, 9], [0, 1, 2, 2]])
    np.testing.assert_array_equal(objects.classes, [1, 0, 1])
    np.testing.assert_array_equal(objects.crowd, [1, 0, 0])
    np.testing.assert_array_equal(objects.area, [7, 36, 2])
    np.testing.assert_array_equal(objects.starts, [0, 1, 2, 3, 3])
    assert objects.most == 1
    assert objects.faults == (
        "Left out 5 boxes: 1 of an unknown class (first 'cow' in 'a'); 1 with coordinates that are no "
        "numbers (first [nan, 1.0, 2.0, 2.0] in 'a'); 1 with the right left of the left, or the bottom above "
        "the top (first [5.0, 5.0, 4.0, 9.0] in 'a'); 1 of zero area (first [5.0, 5.0, 5.0, 9.0] in 'b'); "
        "1 outside of the image (first [20.0, 5.0, 30.0, 9.0] in 'b').",
        "Cut 1 of 3 boxes at the image's border, the first in 'a'.",
    )
    objects.report(strict=False)
    assert capsys.readouterr().err == "\n".join(objects.faults) + "\n"
    with pytest.raises(UserError, match="Left out 5 boxes.* `strict` asks for boxes without a fault"):
        objects.report(strict=True)
    with pytest.raises(UserError, match="None of 2 boxes can be used: 1 of an unknown class"):
        gather([boxes[4], boxes[2]], places, 2, "ab".__getitem__, [(10, 20)] * 2)
    assert gather([], places, 2, str).most == 1
    moved = objects.with_classes([5, 3])
    np.testing.assert_array_equal(moved.classes, [3, 5, 3])
    assert moved.digest() != objects.digest()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"letterbox": "middle"},
            "`letterbox` of 'boxes' must be one of centre, corner, stretch; got 'middle'",
        ),
        (
            {"target": "mask", "letterbox": "corner"},
            "`letterbox` of 'mask' must be one of centre; got 'corner'",
        ),
    ],
)
def test_arguments_are_checked(keywords, message):
    with pytest.raises(UserError, match=message):
        load("shapes", "train", **HOW | keywords)
