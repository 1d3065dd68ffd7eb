"""Losses and metrics of multi-label classification, against scikit-learn's numbers, Keras' and by hand."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kvision import choices
from kvision.intervals import samples
from kvision.tasks import TASKS, Answers, MultiLabel, add
from kvision.tasks.multilabel import average_precisions

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/multilabel.json").read_text())
LABELS = np.array(REFERENCE["labels"], np.uint8)
PROBABILITIES = np.array(REFERENCE["probabilities"], np.float32)
TASK = MultiLabel(class_names=("cat", "dog", "bird", "cow", "ant", "bee"))


def batch(first=None, last=None):
    """Logits of some of the reference's probabilities, and their targets."""
    clipped = np.clip(PROBABILITIES[first:last], 1e-4, 1 - 1e-4)
    labels = LABELS[first:last]
    weight = np.ones(len(labels), np.float32)
    return np.log(clipped / (1 - clipped)), {"labels": labels, "weight": weight}


def test_the_command_offers_the_tasks():
    assert tuple(TASKS) == choices.TASKS


def test_the_loss_is_the_mean_of_the_classes_cross_entropies():
    logits, targets = batch()
    [loss] = TASK.losses(logits, targets, training=True).values()
    probabilities, labels = 1 / (1 + np.exp(-logits)), targets["labels"]
    expected = -np.log(np.where(labels, probabilities, 1 - probabilities))
    np.testing.assert_allclose(loss, expected.mean(-1), rtol=1e-5)
    smoothed = MultiLabel(class_names=TASK.class_names, label_smoothing=0.3)
    targets_there = np.where(labels, 1 - 0.3 + 0.3 / 6, 0.3 / 6)  # timm/data/mixup.py, mixup_target
    expected = -targets_there * np.log(probabilities) - (1 - targets_there) * np.log(1 - probabilities)
    np.testing.assert_allclose(
        smoothed.losses(logits, targets, training=True)["loss"], expected.mean(-1), rtol=1e-5
    )
    np.testing.assert_allclose(smoothed.losses(logits, targets, training=False)["loss"], loss, rtol=1e-6)
    heads = {"predictions": logits, "aux": -logits}
    np.testing.assert_allclose(
        TASK.losses(heads, targets, True)["aux_loss"], 0.3 * TASK.losses(-logits, targets, False)["loss"]
    )


def test_f1_of_training_is_scikit_learns():
    """Over batches, the last of which is filled up."""
    totals = {}
    for first, last in ((0, 20), (20, None)):
        logits, targets = batch(first, last)
        if last is None:
            logits, targets["labels"] = (np.concatenate([x, x[:2]]) for x in (logits, targets["labels"]))
            targets["weight"] = np.append(targets["weight"], [0, 0]).astype(np.float32)
        add(totals, {"images": targets["weight"].sum(), **TASK.sums(logits, targets)})
    metrics = TASK.metrics(totals)
    assert metrics == pytest.approx({"macro_f1": REFERENCE["macro_f1"], "micro_f1": REFERENCE["micro_f1"]})
    assert TASK.remarks(totals) == ["No image has the label 'bird', 'bee'."]
    nothing = {name: np.zeros(6) for name in ("right", "given", "present")}
    assert TASK.metrics({"images": 3.0, **nothing}) == {"macro_f1": 0, "micro_f1": 0}


def test_the_average_precision_is_scikit_learns():
    expected = [np.nan if value is None else value for value in REFERENCE["average_precision"]]
    np.testing.assert_allclose(average_precisions(PROBABILITIES, LABELS)[0], expected)
    counts = samples(len(LABELS))[:5]
    repeated = [
        average_precisions(*(np.repeat(part, count.astype(int), 0) for part in (PROBABILITIES, LABELS)))[0]
        for count in counts
    ]
    np.testing.assert_allclose(average_precisions(PROBABILITIES, LABELS, counts), repeated)


def test_the_evaluation_is_that_of_all_batches_together():
    sums = {}
    for part in (slice(0, 7), slice(7, None)):
        targets = {"labels": LABELS[part], "weight": np.ones(len(LABELS[part]))}
        add(sums, TASK.judge(PROBABILITIES[part], targets))
    wrong = np.abs(LABELS - PROBABILITIES)
    loss = -np.log(np.clip(1 - wrong, 1e-7, 1)).mean()
    first, *lines = TASK.report(sums).splitlines()
    of = {
        name: f"{100 * REFERENCE[name]:.2f} %" for name in ("mean_average_precision", "macro_f1", "micro_f1")
    }
    assert first == (
        f"loss {loss:.4f}, mAP {of['mean_average_precision']}, macro F1 {of['macro_f1']}, micro F1 "
        f"{of['micro_f1']}; average precision of each class:"
    )
    assert lines[:3] == ["  cat    97.62 %", "  dog    71.97 %", "  bird  no image"]


def test_a_network_beside_another():
    def answers(probabilities):
        return Answers(probabilities, np.log(probabilities + 1e-9), probabilities > 0.5)

    perfect = answers(np.where(LABELS, np.float32(0.9), np.float32(0.1)))
    found = TASK.compare(answers(PROBABILITIES), perfect, LABELS)
    mean, f1 = found.scores.values()
    assert [*found.scores] == [TASK.score, "macro F1"]
    assert mean.value == pytest.approx(REFERENCE["mean_average_precision"])
    assert f1.value == pytest.approx(REFERENCE["macro_f1"])
    assert found.drop == pytest.approx(1 - REFERENCE["mean_average_precision"])
    assert mean.interval[0] < mean.value < mean.interval[1]
    assert found.drop_interval == pytest.approx([1 - bound for bound in mean.interval[::-1]])


def test_the_classes_that_are_given_are_described_and_at_least_one():
    assert TASK.describe(np.array([0.1, 0.7, 0, 0.9, 0.2, 0.3]), 5) == [
        " 90.0 %  3  cow",
        " 70.0 %  1  dog",
    ]
    assert TASK.describe(np.array([0.1, 0.7, 0, 0.9, 0.2, 0.3]), 1) == [" 90.0 %  3  cow"]
    assert TASK.describe(np.array([0.1, 0.3, 0, 0, 0.2, 0]), 5) == [" 30.0 %  1  dog"]
    assert TASK.caption(np.array([0, 1, 0, 1, 0, 0])) == "dog, cow"
    assert (
        TASK.caption(np.array([0, 1, 0, 1, 0, 0]) > 0, np.array([0, 0.7, 0, 0.9, 0, 0]))
        == "cow 90 %, dog 70 %"
    )
    assert TASK.caption(np.zeros(6)) == "none"


def test_one_class_is_a_detector():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    )
    served = MultiLabel.serving(model)
    assert served.output_shape == (None, 1)
    pixels = np.ones((2, 8, 8, 3), np.float32)
    np.testing.assert_allclose(served(pixels), keras.ops.sigmoid(model(pixels)), rtol=1e-6)
