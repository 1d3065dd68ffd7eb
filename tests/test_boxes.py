"""Arithmetic of boxes, against drawn pixels and Keras' own."""

import keras
import numpy as np
import pytest

from kvision import boxes

RANDOM = np.random.default_rng(0)


def random_boxes(*shape):
    corners = RANDOM.uniform(0, 100, (*shape, 2))
    return np.concatenate([corners, corners + RANDOM.uniform(1, 50, (*shape, 2))], -1).astype("float32")


def test_overlaps_are_those_of_pixels():
    """Of boxes with integer corners, the sets of covered pixels say it."""
    one, other = (np.rint(random_boxes(20)) for _ in range(2))
    rows, columns = np.mgrid[:160, :160]

    def covered(box):
        left, top, right, bottom = box
        return (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)

    masks = [[covered(box) for box in part] for part in (one, other)]
    expected = [[(a & b).sum() / (a | b).sum() for b in masks[1]] for a in masks[0]]
    np.testing.assert_allclose(boxes.iou(one, other), expected, atol=1e-6)
    np.testing.assert_allclose(boxes.iou(one[None], other[None])[0], expected, atol=1e-6)
    np.testing.assert_allclose(boxes.area(one), [mask.sum() for mask in masks[0]])


def test_integers_are_computed_with_as_floats():
    one, other = np.array([[0, 0, 200, 200]], "uint8"), [[100, 0, 300, 200]]
    np.testing.assert_allclose(boxes.area(one), [40_000])
    for overlap in (boxes.iou, boxes.giou):
        np.testing.assert_allclose(np.ravel(overlap(one, other)), [1 / 3], rtol=1e-6)
    np.testing.assert_allclose(boxes.decode(boxes.encode(other, one), one), other, rtol=1e-5)
    large = keras.ops.cast([[0, 0, 640, 640]], "float16")  # whose area float16 does not hold
    np.testing.assert_allclose(boxes.iou(large, large), [[1.0]])


def test_empty_boxes():
    empty = np.array([[5, 5, 5, 9], [9, 9, 5, 5]], "float32")
    np.testing.assert_array_equal(boxes.area(empty), 0)
    np.testing.assert_array_equal(boxes.iou(empty, empty), 0)
    assert np.isfinite(boxes.giou(empty, empty)).all()
    assert np.isfinite(boxes.ciou(empty, empty)).all()


def test_complete_iou_is_that_of_keras():
    one, other = random_boxes(50), random_boxes(50)
    expected = keras.utils.bounding_boxes.compute_ciou(one, other, "xyxy")
    np.testing.assert_allclose(boxes.ciou(one, other), expected, atol=1e-5)


def test_generalized_iou():
    """Equation 3 of the paper on two unit boxes that are apart by one: -1 + 2 / 3."""
    apart = boxes.giou(np.float32([0, 0, 1, 1]), np.float32([2, 0, 3, 1]))
    np.testing.assert_allclose(apart, -1 / 3, atol=1e-6)
    same = random_boxes(5)
    np.testing.assert_allclose(boxes.giou(same, same), 1, atol=1e-6)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_deltas_lead_from_anchors_to_boxes(weights):
    targets, anchors = random_boxes(7, 9), random_boxes(9)
    deltas = boxes.encode(targets, anchors, weights)
    np.testing.assert_allclose(boxes.decode(deltas, anchors, weights), targets, atol=1e-3)
    expected = keras.utils.bounding_boxes.encode_box_to_deltas(
        anchors, targets[0], "xyxy", "xyxy", variance=[1 / weight for weight in weights]
    )
    np.testing.assert_allclose(np.asarray(deltas[0])[:, [1, 0, 3, 2]], expected, atol=1e-4)


def test_no_delta_lets_a_box_grow_without_end():
    box = boxes.decode(np.float32([0, 0, 100, 100]), np.float32([0, 0, 16, 16]))
    np.testing.assert_allclose(box[2:] - box[:2], 1000, rtol=1e-6)


def test_boxes_are_clipped_and_converted():
    outside = np.float32([[-5, 2, 30, 40], [3, -9, 8, 5]])
    np.testing.assert_array_equal(boxes.clip(outside, 20, 25), [[0, 2, 25, 20], [3, 0, 8, 5]])
    relative = boxes.convert(np.float32([[5, 2, 15, 12]]), "xyxy", "rel_yxyx", height=20, width=25)
    np.testing.assert_allclose(relative, [[0.1, 0.2, 0.6, 0.6]])
