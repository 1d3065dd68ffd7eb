"""The choice of detections, against TensorFlow's greedy suppression."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tflite import operators

from kvision.errors import UserError
from kvision.layers import NonMaxSuppression, suppress
from kvision_export.convert import convert


def random_detections(batch, count, num_classes, *, own_boxes=False, seed=0):
    """Boxes of 5 to 40 pixels in 100 x 100, and scores."""
    random = np.random.default_rng(seed)
    shape = (batch, count, num_classes) if own_boxes else (batch, count)
    centres = random.uniform(0, 100, (*shape, 2))
    sides = random.uniform(5, 40, (*shape, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], -1)
    return boxes.astype("float32"), random.uniform(size=(batch, count, num_classes)).astype("float32")


def by_tensorflow(boxes, scores, *, most, score_threshold, iou_threshold):
    """Score, class and box of each detection, `(found, 6)`, by `tf.image.non_max_suppression` of each class.

    Args:
        boxes: `(N, 4)` or `(N, classes, 4)`.
        scores: `(N, classes)`.
    """
    rows = []
    for label in range(scores.shape[1]):
        own = boxes[:, label] if boxes.ndim == 3 else boxes
        kept = tf.image.non_max_suppression(own, scores[:, label], len(own), iou_threshold, score_threshold)
        rows += [(scores[i, label], label, *own[i]) for i in kept.numpy()]
    return np.reshape(sorted(rows, reverse=True)[:most], (-1, 6))


def thresholds(layer):
    return {key: layer.get_config()[key] for key in ("score_threshold", "iou_threshold")}


def check(outputs, expected):
    """Asserts that the outputs of a batch are the detections of its images, and zeros behind them."""
    for image, rows in enumerate(expected):
        count = len(rows)
        found = {key: np.asarray(value[image]) for key, value in outputs.items()}
        assert found["count"] == count
        np.testing.assert_array_equal(found["scores"][:count], rows[:, 0])
        np.testing.assert_array_equal(found["classes"][:count], rows[:, 1])
        np.testing.assert_array_equal(found["boxes"][:count], rows[:, 2:])
        assert not any(found[key][count:].any() for key in ("boxes", "scores", "classes"))


@pytest.mark.parametrize("count", [500, 2000])
@pytest.mark.parametrize("own_boxes", [False, True])
def test_detections_are_those_of_greedy_suppression_in_each_class(count, own_boxes):
    boxes, scores = random_detections(2, count, 2, own_boxes=own_boxes)
    settings = {"score_threshold": 0.3, "iou_threshold": 0.45}
    layer = NonMaxSuppression(max_detections=300, candidates=2 * count, **settings)
    expected = [by_tensorflow(*pair, most=300, **settings) for pair in zip(boxes, scores, strict=True)]
    check(layer(boxes, scores), expected)


def test_a_box_is_detected_as_its_best_class_alone():
    boxes, scores = random_detections(1, 100, 3)
    layer = NonMaxSuppression(100, 60, score_threshold=0.3, iou_threshold=0.45, multi_label=False)
    best = np.where(scores == scores.max(-1, keepdims=True), scores, 0)
    best[best < np.sort(scores.max(-1))[:, -60, None, None]] = 0  # behind the candidates
    check(layer(boxes, scores), [by_tensorflow(boxes[0], best[0], most=100, **thresholds(layer))])


def test_few_boxes_or_none_leave_zeros():
    boxes, scores = random_detections(2, 3, 2)
    scores[1] = 0
    layer = NonMaxSuppression(max_detections=20)
    expected = [
        by_tensorflow(*pair, most=20, **thresholds(layer)) for pair in zip(boxes, scores, strict=True)
    ]
    assert [len(rows) > 0 for rows in expected] == [True, False]
    check(layer(boxes, scores), expected)
    for boxes in (np.zeros((2, 0, 4)), np.zeros((2, 0, 3, 4))):
        assert not np.any(layer(boxes, np.zeros((2, 0, 3)))["count"])


def test_chains_are_decided_from_their_start():
    """Of boxes that each overlap the next alone, every second one stays."""
    left = np.arange(50, dtype="float32") * 4
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], -1)
    np.testing.assert_array_equal(suppress(boxes[None], 0.4, 30), [[*range(0, 50, 2), *[-1] * 5]])


def test_enough_boxes_are_enough():
    """As many as are asked for, whether these are in the first block or the last; others do not count."""
    left = np.arange(600, dtype="float32") * 10
    boxes = np.stack([left, 0 * left, left + 8, 0 * left + 10], -1)[None]
    groups = np.where(np.arange(600) % 3, 0, -1).astype("int32")[None]
    counting = np.flatnonzero(groups[0] == 0)
    for most in (2, 300, 390):
        np.testing.assert_array_equal(suppress(boxes, 0.5, most, groups), counting[None, :most])
    np.testing.assert_array_equal(suppress(boxes, 0.5, 500, groups)[0, 400:], np.full(100, -1))
    both = np.concatenate([boxes, boxes]), np.concatenate([groups, np.full_like(groups, -1)])
    np.testing.assert_array_equal(suppress(both[0], 0.5, 9, both[1]), [counting[:9], np.full(9, -1)])


@pytest.mark.parametrize(
    ("multi_label", "own_boxes"),
    [
        (True, True),
        pytest.param(False, False, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_files_have_built_in_operators_and_agree(multi_label, own_boxes, tmp_path):
    """Those of one block of boxes, and of three."""
    count = 600 if own_boxes else 200
    boxes, scores = random_detections(1, count, 3, own_boxes=own_boxes)
    numbers = np.concatenate([boxes.reshape(1, count, -1), scores], -1)  # files have one input
    inputs = keras.Input(numbers.shape[1:], name="image")
    parts = keras.ops.reshape(inputs[..., :-3], (-1, *boxes.shape[1:])), inputs[..., -3:]
    model = keras.Model(inputs, NonMaxSuppression(150, count - 50, 0.2, 0.5, multi_label)(*parts))
    expected = model(numbers)
    assert {key: (1, *value.shape[1:]) for key, value in model.output.items()} == {
        key: tuple(value.shape) for key, value in expected.items()
    }
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")(numbers)
    content = convert(model)
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    outputs = Interpreter(model_content=content).get_signature_runner()(series=numbers)
    for key, value in expected.items():
        np.testing.assert_array_equal(again[key], value)
        np.testing.assert_array_equal(outputs[key], value)
        assert outputs[key].dtype == value.numpy().dtype


def test_any_number_of_boxes_in_half_precision():
    boxes, scores = random_detections(1, 70, 2)
    shapes = {"b": (None, 4), "s": (None, 2)}
    inputs = [keras.Input(shape, name=name) for name, shape in shapes.items()]
    layer = NonMaxSuppression(30, 100, dtype="mixed_float16")
    model = keras.Model(inputs, layer(*inputs))
    expected = by_tensorflow(boxes[0], scores[0], most=30, **thresholds(layer))
    check(model.predict([boxes, scores], verbose=0), [expected])


def test_values_that_do_not_fit():
    with pytest.raises(UserError, match="`candidates` must be a positive integer; got 0"):
        NonMaxSuppression(candidates=0)
    with pytest.raises(UserError, match="`score_threshold` must be at least 0; got -1"):
        NonMaxSuppression(score_threshold=-1)
    with pytest.raises(UserError, match="`iou_threshold` must be between 0 and 1; got 45"):
        NonMaxSuppression(iou_threshold=45)
    for shapes in (((1, 3, 4), (3, 2)), ((1, 3, 3), (1, 3, 2)), ((3, 4), (1, 3, 2))):
        with pytest.raises(UserError, match="and scores .batch, N, classes. were expected"):
            NonMaxSuppression()(*map(np.zeros, shapes))
    with pytest.raises(UserError, match="as many boxes as rows of scores"):
        NonMaxSuppression()(np.zeros((1, 3, 4)), np.zeros((1, 2, 2)))
