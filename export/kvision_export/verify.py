"""Fidelity of TFLite files: their answers beside the Keras model's."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from kvision.names import counted
from kvision.tasks import Answers, Classification, Task
from kvision_export import flatbuffer, runner
from kvision_export.activations import FAINTEST, SMALLEST, Activation, Softmax
from kvision_export.answers import CUTS, answer_of

WORST = 20  # images of a report
FEW = 100  # images, below which a single one is more than 1 %
FEW_RANGES = 32  # calibration images, below which activations leave the ranges that they gave
POSITIONS = 4096  # of an image, at the most, whose probabilities are compared


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """Distance of a file from the Keras model.

    Attributes:
        agreement: share of images, or of their pixels, whose first class is the same; of sigmoids, that of
            `Sigmoid.agreement`.
        kl: mean Kullback-Leibler divergence, in nats, from the float32 file's logits.
        sqnr: signal over error of the logits, in dB, against the float32 file's.
        largest_difference, mean_difference: absolute difference of the probabilities.
        worst: numbers of the images with the largest divergence, the worst first.
    """

    agreement: float
    kl: float
    sqnr: float
    largest_difference: float
    mean_difference: float
    worst: list[int]

    @property
    def error(self) -> float:
        """KL plus the logits' noise over signal, which shows what saturated probabilities hide."""
        return self.kl + 10 ** (-self.sqnr / 10) if np.isfinite(self.kl) else np.inf


def answers(
    content: bytes, images: np.ndarray, pixels: bool = True, activation: Activation = Softmax
) -> Answers:
    """Answers of a file on images, with one output at a time in memory; see `runner.predict`."""
    model = flatbuffer.read(content)
    answer, logits = answer_of(model), None
    if CUTS[answer](model):
        model.signatureDefs = []
        logits = runner.outputs(flatbuffer.write(model), images, pixels)
    return collect(runner.outputs(content, images, pixels), logits, answer, activation, FAINTEST)


def collect(
    outputs: Iterable[np.ndarray],
    logits: Iterable | None = None,
    answer: str = "probabilities",
    activation: Activation = Softmax,
    least: float = SMALLEST,
) -> Answers:
    """Answers from a network's outputs, one after the other.

    Args:
        outputs: for each image, `(classes,)` or `(height, width, classes)`; of a mask `(height, width)`.
        logits: logits for each image; None where the outputs tell them.
        answer: what the outputs are, one of `choices.ANSWERS`.
        activation: activation of the network.
        least: probability that counts as any below it, where logits are not known.
    """
    pairs = ((output, None) for output in outputs) if logits is None else zip(outputs, logits, strict=True)
    parts = [READERS[answer](*pair, activation, least) for pair in pairs]
    probabilities, logits, classes = map(np.stack, zip(*parts, strict=True))
    return Answers(probabilities, activation.comparable(logits), classes)


def _read_probabilities(output, logits, activation, least):
    sampled = _sampled(output)
    logits = activation.logits(sampled, least) if logits is None else _sampled(logits)
    return sampled, logits, activation.classes(output)


def _read_logits(output, _, activation, __):
    logits = _sampled(output)
    return activation.probabilities(logits), logits, activation.classes(activation.probabilities(output))


def _read_mask(output, logits, activation, _):
    logits = _sampled(logits)
    return activation.probabilities(logits), logits, output.astype(np.uint8)


READERS = {"probabilities": _read_probabilities, "logits": _read_logits, "mask": _read_mask}


def _sampled(values) -> np.ndarray:
    """Sampled pixel positions, the same in each image; a single answer an image is kept whole."""
    pixels = values.reshape(-1, values.shape[-1])
    if len(pixels) > POSITIONS:
        pixels = pixels[np.random.default_rng(0).choice(len(pixels), POSITIONS, replace=False)]
    return pixels if values.ndim > 1 else values


def fidelity(found: Answers, expected: Answers, activation: Activation = Softmax) -> Fidelity:
    """Compares a file's answers with those of the Keras model."""
    difference = np.abs(found.probabilities - expected.probabilities)
    divergence = activation.divergence(expected.logits, found.logits)
    signal = float(np.square(expected.logits).sum())
    error = float(np.square(found.logits - expected.logits).sum())
    image_divergence = divergence.reshape(len(divergence), -1).mean(-1)
    return Fidelity(
        agreement=activation.agreement(expected.classes, found.classes),
        kl=0.0 if divergence.mean() < 0 else float(divergence.mean()),
        sqnr=float(10 * np.log10(max(signal, SMALLEST) / max(error, SMALLEST))),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        worst=np.argsort(-image_divergence)[:WORST].tolist(),
    )


def remarks(
    count: int, labeled: bool, calibrating: int | None = None, task: type[Task] = Classification
) -> list[str]:
    """Remarks on the images for a reader of measurements, a sentence each.

    Args:
        count: number of images on which the files are judged.
        labeled: whether these have labels.
        calibrating: number of images that give the ranges and choose the steps of int8; None for none.
        task: what the network learned.
    """
    sentences = []
    if not labeled:
        score = task.score if task.score[1].isupper() else f"{task.score[0].upper()}{task.score[1:]}"
        sentences.append(
            f"{score} is left out, as the {task.kind}s have no {task.targets}; files are judged by their "
            "agreement with the Keras model."
        )
    if count < FEW:
        images = counted(count, task.kind)
        if task.one_class and count > 1:
            images += f", each of which is {100 / count:.1f} %"
        sentences.append(f"The files are judged on {images}: small differences show on {FEW} or more.")
    if calibrating is not None and calibrating < FEW_RANGES:
        sentences.append(
            f"Ranges and steps of int8 come from {calibrating} calibration {task.kind}s alone: with "
            f"{FEW_RANGES} or more the file may be much better."
        )
    return sentences
