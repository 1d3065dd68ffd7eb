"""Measuring TFLite files: their answers beside the Keras model's, their speed beside the float file's."""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kvision._stderr import without_lines
from kvision.tasks import Answers, Classification, Task
from kvision_export import answers as ends, flatbuffer
from kvision_export.activations import SMALLEST, Activation, Softmax

TURNS, WARMUP, RUNS = 4, 2, 20
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
        sqnr: of the logits: signal over error, in dB, against the float32 file's.
        largest_difference, mean_difference: of the probabilities, absolute.
        worst: the images with the largest divergence, the worst first.
    """

    agreement: float
    kl: float
    sqnr: float
    largest_difference: float
    mean_difference: float
    worst: list[int]


def answers(
    content: bytes, images: Sequence[np.ndarray], pixels: bool = True, activation: Activation = Softmax
) -> Answers:
    """Answers of a file on images, of which one output at a time is held; arguments as for `predict`."""
    model = flatbuffer.read(content)
    answer, logits = ends.answer_of(model), None
    if ends.CUTS[answer](model):
        model.signatureDefs = []
        logits = _outputs(flatbuffer.write(model), images, pixels)
    return collect(_outputs(content, images, pixels), logits, answer, activation)


def collect(
    outputs: Iterable[np.ndarray],
    logits: Iterable | None = None,
    answer: str = "probabilities",
    activation: Activation = Softmax,
) -> Answers:
    """Answers from a network's outputs, one after the other.

    Args:
        outputs: for each image, `(classes,)` or `(height, width, classes)`; of a mask `(height, width)`.
        logits: for each image; None where the outputs tell them.
        answer: what the outputs are, one of `choices.ANSWERS`.
        activation: of the network.
    """
    pairs = ((output, None) for output in outputs) if logits is None else zip(outputs, logits, strict=True)
    parts = [READERS[answer](*pair, activation) for pair in pairs]
    probabilities, logits, classes = map(np.stack, zip(*parts, strict=True))
    return Answers(probabilities, activation.comparable(logits), classes)


def _read_probabilities(output, logits, activation):
    sampled = _sampled(output)
    logits = activation.logits(sampled) if logits is None else _sampled(logits)
    return sampled, logits, activation.classes(output)


def _read_logits(output, _, activation):
    logits = _sampled(output)
    return activation.probabilities(logits), logits, activation.classes(activation.probabilities(output))


def _read_mask(output, logits, activation):
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
    of_images = divergence.reshape(len(divergence), -1).mean(-1)
    return Fidelity(
        agreement=activation.agreement(expected.classes, found.classes),
        kl=0.0 if divergence.mean() < 0 else float(divergence.mean()),
        sqnr=float(10 * np.log10(max(signal, SMALLEST) / max(error, SMALLEST))),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        worst=np.argsort(-of_images)[:WORST].tolist(),
    )


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Tolerance of a file: every bound that is set, but not agreement where the score is bounded and known.

    Attributes:
        difference: largest difference of a probability.
        agreement: least share of images or pixels with the Keras model's first class.
        drop: most that the task's score may fall, as a share.
    """

    difference: float | None = None
    agreement: float | None = None
    drop: float | None = None

    def refusal(self, difference: float, agreement: float, drop: float | None, score: str = "top-1") -> str:
        """Bounds that are not kept; "" where all are.

        Args:
            difference, agreement: see `Fidelity`.
            drop: drop of the score; None without labels.
            score: its name.
        """
        if not np.isfinite(difference):
            return "the output contains NaN or infinity"
        if self.difference is not None and difference > self.difference:
            return f"a probability differs by {difference:.1g}, not {self.difference:g} at the most"
        if self.drop is None or drop is None:
            if self.agreement is not None and agreement < self.agreement:
                return f"it agrees on {100 * agreement:.1f} %, not {100 * self.agreement:g} % at the least"
        elif drop > self.drop:
            return f"{score} drops by {100 * drop:.2f} points, not {100 * self.drop:g} at the most"
        return ""


def remarks(
    count: int, labeled: bool, calibrating: int | None = None, task: type[Task] = Classification
) -> list[str]:
    """Remarks on the images for a reader of measurements, a sentence each.

    Args:
        count: how many images the files are judged on.
        labeled: whether these have labels.
        calibrating: how many images give the ranges and choose the steps of int8; None for none.
        task: what the network learned.
    """
    sentences = []
    if not labeled:
        score = task.score if task.score[1].isupper() else f"{task.score[0].upper()}{task.score[1:]}"
        sentences.append(
            f"{score} is left out, as the images have no {task.targets}; files are judged by their agreement "
            "with the Keras model."
        )
    if count < FEW:
        images = "1 image" if count == 1 else f"{count} images, each of which is {100 / count:.1f} %"
        sentences.append(f"The files are judged on {images}: small differences show on {FEW} or more.")
    if calibrating is not None and calibrating < FEW_RANGES:
        sentences.append(
            f"Ranges and steps of int8 come from {calibrating} calibration images alone: with "
            f"{FEW_RANGES} or more the file may be much better."
        )
    return sentences


def predict(content: bytes | Path, images: Sequence[np.ndarray], pixels: bool = True) -> np.ndarray:
    """A file's first output, as float32 `(images, ...)`.

    Args:
        content: the file.
        images: float32 `(height, width, channels)` in [0, 255].
        pixels: whether an integer input takes them rounded; else quantized by the input's own scale.
    """
    return np.stack([*_outputs(content, images, pixels)])


def _outputs(content, images, pixels) -> Iterator[np.ndarray]:
    interpreter, feed = _open(content, 2, pixels)
    details = interpreter.get_output_details()[0]
    scale, zero_point = details["quantization"]
    for image in images:
        feed(image)
        interpreter.invoke()
        output = interpreter.get_tensor(details["index"])[0].astype(np.float32)
        yield (output - zero_point) * np.float32(scale) if scale else output


def milliseconds(time: float) -> str:
    """A time with three significant digits: "0.0514", "5.14", "514"."""
    return f"{time:.{max(0, 2 - math.floor(math.log10(time)))}f}" if 0 < time < 100 else f"{time:.0f}"


def latencies(files: Mapping[str, bytes | Path], image: np.ndarray, threads: int) -> dict[str, float]:
    """Milliseconds of each file for one image, XNNPACK on, all files in turns.

    Of one thread its own time, without what other processes take; of more the time that passes. The first
    file's is the median, the others' that times the median of their ratios to it, run by run: repeated, such
    a ratio varies by 0.6 % where that of two medians varies by 2 %.
    """
    times = np.concatenate([_turn([*files.values()], image, threads, turn % 2 > 0) for turn in range(TURNS)])
    ratios = np.median(times / times[:, :1], axis=0)
    return dict(zip(files, (1000 * np.median(times[:, 0]) * ratios).tolist(), strict=True))


def _turn(files, image, threads, backwards) -> np.ndarray:
    """Seconds `(runs, files)`, of files opened in their order or backwards: the first is 1 or 2 % slower."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    order = range(len(files))
    opened = {number: _open(files[number], threads) for number in (order[::-1] if backwards else order)}
    for _, feed in opened.values():
        feed(image)
    times = np.zeros((WARMUP + RUNS, len(files)))
    for of_run in times:
        for number, (interpreter, _) in opened.items():
            start = clock()
            interpreter.invoke()
            of_run[number] = clock() - start
    return times[WARMUP:]


def allocated(content: bytes | Path, threads: int | None = None) -> Interpreter:
    """An interpreter of a file with XNNPACK, ready to be fed."""
    source = {"model_content": content} if isinstance(content, bytes) else {"model_path": str(content)}
    interpreter = Interpreter(**source, num_threads=threads)
    with without_lines("INFO: Created TensorFlow Lite XNNPACK delegate"):
        interpreter.allocate_tensors()
    return interpreter


def _open(content, threads, pixels=True):
    interpreter = allocated(content, threads)
    details = interpreter.get_input_details()[0]
    scale, zero_point = (
        (1.0, -128 if details["dtype"] == np.int8 else 0) if pixels else details["quantization"]
    )

    def feed(image):
        if details["dtype"] != np.float32:
            limits = np.iinfo(details["dtype"])
            image = np.clip(np.rint(image / scale) + zero_point, limits.min, limits.max)
        interpreter.set_tensor(details["index"], image.astype(details["dtype"])[None])

    return interpreter, feed
