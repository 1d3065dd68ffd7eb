"""Figures of a report."""

import dataclasses

import numpy as np
import pytest
from helpers import randomized, tiny
from tflite import images

from kvision.intervals import wilson
from kvision.tasks import Answers, Classification, Segmentation
from kvision_export import latency, verify
from kvision_export.activations import FAINTEST, Sigmoid, Softmax
from kvision_export.convert import convert
from kvision_export.latency import latencies
from kvision_export.tolerance import Tolerance
from kvision_export.verify import answers, collect, fidelity


def of_probabilities(probabilities):
    """Answers of a classifier."""
    return Answers(probabilities, np.log(probabilities + 1e-9), probabilities.argmax(-1))


def test_accuracy_beside_another_classifiers():
    labels = np.repeat(np.arange(10), 10)
    theirs = np.eye(10)[labels] * 0.9
    ours = theirs.copy()
    ours[:6] = np.roll(ours[:6], 1, axis=1)  # six lost
    theirs[50:52] = np.roll(theirs[50:52], 1, axis=1)  # two won
    task = Classification(class_names=tuple("0123456789"))
    found = task.compare(of_probabilities(ours), of_probabilities(theirs), labels)
    top1, top5 = found.scores.values()
    assert (top1.value, found.drop) == (pytest.approx(0.94), pytest.approx(0.04))
    # half an image more in each cell: (6.5 - 2.5) / 102 +- 1.96 sqrt(9 - 4 ** 2 / 102) / 102
    assert found.drop_interval == pytest.approx((0.03922 - 0.05714, 0.03922 + 0.05714), abs=1e-4)
    assert top5.value == 1
    assert top1.interval[0] < 0.94 < top1.interval[1]


def test_mean_iou_beside_another_networks():
    """Two images of two classes, the second of which is ignored in part."""
    masks = np.array([[[0, 1], [1, 1]], [[0, 0], [1, 255]]], np.uint8)
    theirs, ours = (
        Answers(np.zeros((2, 4, 2)), np.zeros((2, 4, 2)), np.array(classes, np.uint8))
        for classes in ([[[0, 1], [1, 1]], [[0, 0], [1, 0]]], [[[1, 1], [1, 1]], [[0, 0], [1, 1]]])
    )
    task = Segmentation(class_names=("a", "b"))
    assert task.compare(theirs, theirs, masks).scores["mean IoU"].value == 1
    found = task.compare(ours, theirs, masks)
    iou, accuracy = found.scores.values()
    assert iou.value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert accuracy.value == pytest.approx(6 / 7)
    assert found.drop == pytest.approx(1 - iou.value)
    # of one image twice: 3 / 8, 1, and of both
    assert iou.interval == pytest.approx((3 / 8, 1))
    assert found.drop_interval == pytest.approx((0, 5 / 8))


def test_times_have_three_digits():
    times = 0.05137, 5.137, 51.37, 513.7
    assert [latency.milliseconds(time) for time in times] == ["0.0514", "5.14", "51.4", "514"]


def test_wilson():
    """81 of 263, Newcombe 1998, table I, method 3; none and all of 10."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(1, 10) == pytest.approx((0.7225, 1), abs=1e-4)


def test_fidelity():
    logits = np.array([[2.0, 0, -2], [0, 3, -3]], np.float32)

    def of(logits):
        shares = np.exp(logits)
        return Answers(shares / shares.sum(-1, keepdims=True), logits, logits.argmax(-1))

    same = fidelity(of(logits), of(logits))
    assert (same.agreement, same.kl, same.largest_difference) == (1, 0, 0)
    near = fidelity(of(logits * np.float32(1.1)), of(logits))
    assert near.sqnr == pytest.approx(20, abs=1e-3)  # an error of a tenth
    swapped = fidelity(of(np.array([[2, 0, -2], [3, 0, -3]], np.float32)), of(logits))
    assert swapped.agreement == 0.5
    assert swapped.worst == [1, 0]
    assert dataclasses.replace(near, kl=0.1, sqnr=20.0).error == pytest.approx(0.11)
    assert dataclasses.replace(near, kl=float("nan")).error == np.inf


def test_fidelity_of_sigmoids():
    """The divergence is that of each class as a distribution of two, and absent classes do not agree."""

    def of(logits):
        return collect(1 / (1 + np.exp(-logits)), iter(logits), activation=Sigmoid)

    expected, found = (
        of(np.array(logits)) for logits in ([[2.0, -1, 3], [-1, -2, -3]], [[1.0, 1, 2], [-2, -2, -2]])
    )
    pairs = [np.stack([answer.logits, 0 * answer.logits], -1) for answer in (expected, found)]
    near = fidelity(found, expected, Sigmoid)
    assert near.kl == pytest.approx(Softmax.divergence(*pairs).mean())
    assert near.agreement == pytest.approx(2 / 3)  # of the labels that one of both gives
    assert fidelity(expected, expected, Sigmoid).agreement == 1
    nothing = of(np.full((2, 3), -5.0))
    assert fidelity(nothing, expected, Sigmoid).agreement == 0
    assert fidelity(nothing, nothing, Sigmoid).agreement == 1


def test_a_divergence_that_is_no_number_is_not_taken_for_none():
    good = of_probabilities(np.full((1, 2), 0.5, np.float32))
    bad = of_probabilities(np.full((1, 2), np.nan, np.float32))
    assert np.isnan(fidelity(bad, good).kl)


def test_logits_are_what_the_softmax_is_given():
    """Also where the probabilities are 0 and 1, of which no logarithm tells."""
    logits = randomized(tiny("mobilenet_v1", classifier_activation=None))
    classifier = logits.get_layer("classifier").kernel
    classifier.assign(classifier * 1e4)
    model = tiny("mobilenet_v1")
    model.set_weights(logits.get_weights())
    found, expected = answers(convert(model), images()), logits.predict(images(), verbose=0)
    assert found.probabilities.min() == 0
    np.testing.assert_allclose(found.logits, expected - expected.mean(-1, keepdims=True), rtol=1e-3, atol=0.1)


def test_latencies_are_times():
    content = convert(tiny("lenet5"))
    found = latencies({"a": content, "b": content}, images(channels=1)[0], threads=1)
    assert all(0 < ms < 1000 for ms in found.values())


def test_latencies_do_not_see_what_slows_all_files(monkeypatch):
    """Runs of 1 and 2 ms on a computer that becomes three times as slow, again and again."""
    times = np.array([1e-3, 2e-3]) * np.tile([1, 1, 3, 1, 3], 5)[:, None]
    monkeypatch.setattr(latency, "_turn", lambda *args: times)
    assert latencies({"a": b"", "b": b""}, images()[0], threads=1) == pytest.approx({"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("tolerance", "measured", "refusal"),
    [
        (Tolerance(difference=1e-4), (1e-5, 0.9, 0.1), ""),
        (
            Tolerance(difference=1e-4),
            (1e-3, 1.0, 0.0),
            "a probability differs by 0.001, not 0.0001 at the most",
        ),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.96, 0.004), ""),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.98, 0.1), "top-1 drops by 10.00 points, not 0.5"),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.98, None), ""),
        (Tolerance(agreement=0.97, drop=0.005), (0.5, 0.96, 0.006), "top-1 drops by 0.60 points, not 0.5"),
        (
            Tolerance(agreement=0.97, drop=0.005),
            (0.5, 0.96, None),
            "it agrees on 96.0 %, not 97 % at the least",
        ),
        (Tolerance(agreement=0.97), (float("nan"), 1.0, 0.0), "the output contains NaN"),
    ],
)
def test_tolerances(tolerance, measured, refusal):
    found = tolerance.refusal(*measured)
    assert found.startswith(refusal)
    assert bool(found) == bool(refusal)


def test_few_images_are_said():
    assert not verify.remarks(500, True, 128)
    (sentence,) = verify.remarks(500, True, 4)
    assert "4 calibration images" in sentence
    assert "1 image:" in verify.remarks(1, True)[0]


def test_probabilities_that_eight_bits_round_to_zero_are_no_errors():
    """Of a file without logits, such as an average of softmaxes."""
    logits = 8 * np.random.default_rng(0).normal(size=(100, 10))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rounded, exact = (
        verify.collect(values, least=FAINTEST) for values in (np.rint(256 * shares) / 256, shares)
    )
    found = verify.fidelity(rounded, exact)
    assert found.sqnr > 20
    assert found.kl < 1e-3
