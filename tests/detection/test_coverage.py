"""Which anchors and cells learn which objects."""

import numpy as np
import pytest
from helpers import NARROW, SMALL, mostly_slow, small_columns, tiny_yolox

import kvision
from kvision import detection
from kvision.tasks import Detection

SHAPE = {"input_shape": (96, 96, 3), "num_classes": 3}
PIXELS = np.zeros((2, 96, 96, 3), "float32")
ANCHORS = {  # columns of a small form, the overlap from which an anchor learns, and a box of none
    "ssdlite320_mobilenet_v3_large": (
        small_columns("mobilenet_v3_large") | {"extra_filters": (16, 8, 8, 8)}, 0.5
    ),
    "fasterrcnn_resnet50_fpn": (
        SMALL["resnet"] | {"pyramid_filters": 8, "hidden_filters": 16, "proposals": 20}, 0.7
    ),
}  # fmt: skip


def batch(*objects):
    """Two images, of which the first has the objects and another one that is ignored."""
    boxes, classes = np.zeros((2, 4, 4), "float32"), np.full((2, 4), -1, "int32")
    boxes[0, : len(objects)], classes[0, : len(objects)] = objects, 1
    boxes[0, 3], classes[0, 3] = (0, 0, 90, 90), 2
    crowd = np.zeros((2, 4), "uint8")
    crowd[0, 3] = 1
    return {"image": PIXELS, "boxes": boxes, "classes": classes, "crowd": crowd}


@pytest.mark.parametrize("name", mostly_slow(ANCHORS, "fasterrcnn_resnet50_fpn"))
def test_anchors_take_what_they_overlap(name):
    columns, threshold = ANCHORS[name]
    model = kvision.create_model(name, **SHAPE, **columns)
    anchors = np.asarray(detection.raw(model)(PIXELS)["anchors"])[0]
    inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= 96).all(1)
    like = anchors[np.flatnonzero(inside)[5]]
    objects = batch(like, (10, 10, 13, 90))
    found = detection.assigned(
        model, PIXELS, objects["boxes"], np.where(objects["crowd"], -1, objects["classes"])
    )
    np.testing.assert_allclose(found.places[1], anchors)
    assert found.missed.tolist() == [[False, True, False, False], [False] * 4]
    overlaps = np.asarray(kvision.boxes.iou(objects["boxes"][0], anchors))
    np.testing.assert_array_equal(found.chosen[0, 0], overlaps[0] >= threshold)
    assert found.chosen[0, 1].any()
    assert overlaps[1, found.chosen[0, 1]].min() == overlaps[1].max()
    assert not found.chosen[0, 2:].any()
    assert not found.chosen[1].any()
    (doubt,) = Detection(class_names=("a", "b", "c")).doubts(model, [objects])
    start = "50.0 % of the 2 objects in the first 2 training images overlap no anchor by"
    assert doubt == f"{start} {threshold} or more: only the nearest one learns them."


def test_cells_take_one_object():
    yolo = kvision.create_model("yolo_v1_fast", **SHAPE, **NARROW, hidden_filters=(8, 8), grid=3)
    yolox = tiny_yolox("yolox_nano", **SHAPE)
    objects = batch((0, 32, 30, 60), (2, 33, 30, 63), (66, 2, 94, 30))
    classes = np.where(objects["crowd"], -1, objects["classes"])
    found = detection.assigned(yolo, PIXELS, objects["boxes"], classes)
    assert found.missed.tolist() == [[False, True, False, False], [False] * 4]
    image, number, cell = np.nonzero(found.chosen)
    assert (image.tolist(), number.tolist(), cell.tolist()) == ([0, 0], [0, 2], [3, 2])
    np.testing.assert_allclose(found.places[0, 3], [0, 32, 32, 64])
    alike = batch((0, 32, 30, 60), (0, 32, 30, 60))
    classes = np.where(alike["crowd"], -1, alike["classes"])
    found = detection.assigned(yolox, PIXELS, alike["boxes"], classes)
    assert found.missed.tolist() == [[False, True, False, False], [False] * 4]
    assert found.chosen[0, 0].any()
    centres = (found.places[0, :, :2] + found.places[0, :, 2:])[found.chosen[0, 0]] / 2
    assert (np.abs(centres - [15, 46]) < 2.5 * 32).all()
    task = Detection(class_names=("a", "b", "c"))
    (doubt,) = task.doubts(yolox, [alike])
    assert "50.0 % of the 2 objects in the first 2 training images share a cell" in doubt
    assert task.doubts(yolox, [batch((10, 10, 50, 50))]) == []
    pictures = task.preview(yolox, alike)
    assert [picture.size for picture, _ in pictures] == [(384, 384)] * 2
