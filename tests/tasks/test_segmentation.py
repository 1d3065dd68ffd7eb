"""Losses and metrics of segmentation, against Keras' own and by hand."""

import keras
import numpy as np
import pytest

from kvision.errors import UserError
from kvision.tasks import Segmentation
from kvision.tasks.segmentation import class_iou, scores

CLASSES = ("background", "cat", "dog", "bird")


def batch(images=3, size=8):
    """Masks of the first three classes with some ignored pixels, and random logits."""
    random = np.random.default_rng(0)
    mask = random.integers(0, 3, (images, size, size)).astype("int32")
    mask[random.uniform(size=mask.shape) < 0.2] = 255
    logits = random.normal(0, 2, (images, size, size, len(CLASSES))).astype("float32")
    return logits, {"mask": mask, "weight": np.ones(images, "float32")}


def test_pixels_are_counted_beyond_the_integers_of_float32():
    task, side = Segmentation(class_names=("a", "b")), 4200
    batch = {"mask": np.zeros((1, side, side), "int32"), "weight": np.ones(1, "float32")}
    logits = np.broadcast_to(np.array([1, 0], "float32"), (1, side, side, 2))
    confusion = np.asarray(task.sums(logits, batch)["confusion"])
    np.testing.assert_allclose(confusion, [[side**2, 0], [0, 0]], rtol=1e-6)


def test_more_classes_than_masks_can_hold_are_refused():
    with pytest.raises(UserError, match="at most 255 classes, .* got 256"):
        Segmentation(class_names=tuple(map(str, range(256))))


def test_masks_without_a_class_have_no_scores():
    task = Segmentation(class_names=("a", "b"))
    with pytest.raises(UserError, match="No pixel of the masks has a class"):
        task.report({"images": 1, "confusion": np.zeros((2, 2))})


def test_the_cross_entropy_is_keras_with_ignored_pixels_and_class_weights():
    logits, targets = batch()
    [loss] = Segmentation(class_names=CLASSES).losses(logits, targets, training=True).values()
    weights = (1.0, 2.0, 0.5, 7.0)
    weighted = Segmentation(class_names=CLASSES, class_weights=weights).losses(logits, targets, True)["loss"]
    for i, mask in enumerate(targets["mask"]):
        pixels, classes = logits[i][mask != 255], mask[mask != 255]
        expected = keras.losses.sparse_categorical_crossentropy(classes, pixels, True).numpy()
        assert float(loss[i]) == pytest.approx(expected.mean(), rel=1e-5)
        of_class = np.array(weights)[classes]
        assert float(weighted[i]) == pytest.approx((of_class * expected).sum() / of_class.sum(), rel=1e-5)


def test_the_dice_loss_is_one_minus_the_mean_over_the_classes_of_the_image():
    logits, targets = batch()
    plain = Segmentation(class_names=CLASSES).losses(logits, targets, True)["loss"]
    loss = Segmentation(class_names=CLASSES, dice_weight=0.25).losses(logits, targets, True)["loss"]
    for i, mask in enumerate(targets["mask"]):
        truth = np.eye(4, dtype="float32")[mask[mask != 255]]
        probabilities = keras.ops.softmax(logits[i][mask != 255]).numpy()
        expected = float(keras.losses.dice(truth[:, :3], probabilities[:, :3], axis=0).numpy().mean())
        assert float(loss[i] - plain[i]) == pytest.approx(0.25 * expected, abs=1e-5)


def test_auxiliary_heads_count_half_in_training_and_nothing_after():
    logits, targets = batch()
    task = Segmentation(class_names=CLASSES)
    heads = {"predictions": logits, "auxiliary": -logits}
    training, after = (task.losses(heads, targets, training) for training in (True, False))
    assert list(training) == ["loss", "auxiliary_loss"]
    assert list(after) == ["loss"]
    np.testing.assert_allclose(
        training["auxiliary_loss"], 0.5 * task.losses(-logits, targets, False)["loss"], rtol=1e-6
    )


def test_the_confusion_matrix_gives_the_mean_iou_of_keras():
    logits, targets = batch()
    task = Segmentation(class_names=CLASSES)
    targets["weight"][1] = 0  # an image that fills up the batch
    sums = {name: np.array(value) for name, value in task.sums(logits, targets).items()}
    there, predicted = targets["mask"][[0, 2]], logits[[0, 2]].argmax(-1)
    known = there != 255
    assert sums["confusion"].sum() == known.sum()
    oracle = keras.metrics.MeanIoU(len(CLASSES))
    oracle.update_state(there[known], predicted[known])
    metrics = task.metrics(sums | {"images": 2.0, "loss": 3.0})
    assert metrics["mean_iou"] == pytest.approx(float(oracle.result()), rel=1e-6)
    assert metrics["pixel_accuracy"] == pytest.approx((there == predicted)[known].mean(), rel=1e-6)
    assert metrics["loss"] == 1.5


def test_scores_by_hand():
    """Two classes occur, a third is only predicted, a fourth does not occur."""
    confusion = np.array([[6, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], float)
    np.testing.assert_allclose(class_iou(confusion), [6 / 9, 1 / 3, 0, np.nan])
    assert scores(confusion) == pytest.approx({
        "mean_iou": (6 / 9 + 1 / 3 + 0) / 3,
        "pixel_accuracy": 0.7,
        "mean_accuracy": (6 / 8 + 1 / 2) / 2,
        "frequency_weighted_iou": 0.8 * 6 / 9 + 0.2 / 3,
    })  # fmt: skip
    assert set(scores(np.zeros((3, 3))).values()) == {0.0}


def test_captions_count_the_pixels_that_have_a_class():
    task = Segmentation(class_names=("sky", "sea"))
    mask, answer = np.array([[0, 1, 255, 255]]), np.array([[0, 1, 1, 1]])
    comparable = task.comparable(answer, mask)
    assert task.caption(comparable) == task.caption(mask) == "50.0 %  0  sky, 50.0 %  1  sea"
