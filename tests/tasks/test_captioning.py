"""Losses, metrics and pictures of captions; BLEU against sacrebleu's numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from kvision import bleu, visualize
from kvision.tasks import Captioning, add
from kvision.vocabulary import END, PADDING, SPECIAL, START

CASES = json.loads((Path(__file__).parents[1] / "reference/bleu.json").read_text())["cases"]
TASK = Captioning(class_names=(*SPECIAL, "a", "cat", "dog"))
TOKENS = np.array([[START, 4, 5, END, PADDING], [START, 4, 6, 5, 4], [PADDING] * 5], np.int32)
BATCH = {"tokens": TOKENS, "weight": np.array([1, 1, 0], np.float32)}
LOGITS = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_bleu_is_sacrebleus(case):
    sums = {}
    for candidate, references in zip(case["candidates"], case["references"], strict=True):
        add(sums, bleu.counts(candidate, references))
    np.testing.assert_allclose(bleu.scores(sums), case["scores"], atol=1e-12)


def test_bleu_of_nothing_is_nothing():
    assert bleu.scores(bleu.counts([], [[4, 5]])) == [0, 0, 0, 0]
    assert bleu.scores(bleu.counts([4, 5], [[4, 5]])) == [1, 1, 0, 0]  # without a run of three


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_mean_over_the_words_and_the_end(smoothing):
    task = Captioning(class_names=TASK.class_names, label_smoothing=smoothing)
    logs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    expected = []
    for of_one, tokens in zip(logs, TOKENS[:, 1:], strict=True):
        of_words = [
            (1 - smoothing) * log[n] + smoothing * log.mean()
            for log, n in zip(of_one, tokens, strict=True)
            if n
        ]
        expected.append(-np.mean(of_words) if of_words else 0)
    np.testing.assert_allclose(task.losses(LOGITS, BATCH, training=True)["loss"], expected, rtol=1e-5)
    if smoothing:
        plain = TASK.losses(LOGITS, BATCH, training=True)["loss"]
        np.testing.assert_allclose(task.losses(LOGITS, BATCH, training=False)["loss"], plain)


def test_the_accuracy_is_that_of_the_words():
    logits = np.full((3, 4, 7), -1.0, np.float32)
    for place, number in [((0, 0), 4), ((0, 1), 6), ((0, 2), END), ((0, 3), 4), ((1, 0), 4), ((2, 0), 4)]:
        logits[(*place, number)] = 1  # right, wrong, right, behind the end, right, of no image
    sums = {"images": 2.0, "loss": 3.0, **TASK.sums(logits, BATCH)}
    assert TASK.metrics(sums) == {"loss": 1.5, "accuracy": pytest.approx(3 / 7, abs=0.3)}
    assert (float(sums["right"]), float(sums["words"])) == (3, 7)


def test_sentences_are_judged_by_all_captions_of_their_image():
    answers = {"tokens": np.array([[4, 5, END, PADDING], [4, 6, 5, 4], [END, 0, 0, 0]])}
    references = np.array(
        [[[4, 6, 0, 0], [4, 5, 0, 0]], [[4, 6, 5, 9], [0, 0, 0, 0]], [[4, 5, 0, 0], [0, 0, 0, 0]]]
    )  # 9 is a word that the vocabulary lacks
    sums = TASK.judge(answers, {"references": references, "weight": np.ones(3)})
    figures = TASK.figures(sums)
    assert figures["exact"] == pytest.approx(1 / 3)
    assert figures["bleu_1"] == pytest.approx(5 / 6 * np.exp(1 - 8 / 6))
    assert TASK.report(sums).startswith("exact match 33.33 %, BLEU-1 59.71 %, BLEU-2 ")


def test_captions_are_drawn_and_written():
    (first, caption), *_ = TASK.preview(None, {"image": np.full((3, 8, 8, 3), 7.0), "tokens": TOKENS})
    assert (first.size, caption) == ((8, 8), "a cat")
    prediction = {"tokens": np.array([4, 6, END, PADDING]), "image": np.full((40, 40, 3), 200.0)}
    assert TASK.describe(prediction, 5) == ["a dog"]
    looks = np.zeros((4, 2, 2))
    looks[0, 0, 1] = looks[1, 1, 0] = 1
    (ending, sheet), *others = TASK.pictures(None, prediction | {"attention": looks}).items()
    assert (ending, others) == ("_attention.png", [])
    assert sheet.size[0] > 2 * 160 > sheet.size[1]  # a picture a word, side by side
    assert not TASK.pictures(None, prediction | {"attention": looks, "tokens": np.array([END, 0, 0, 0])})
    lit = np.asarray(visualize.spotlight(prediction["image"], looks[0]))[..., 0]
    assert lit[0, -1] > 190 > 60 > lit[-1, 0]
