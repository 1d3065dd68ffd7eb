"""Measuring TFLite files: their answers beside the Keras model's, their speed beside the float file's."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kvision._intervals import paired_interval, share, wilson
from kvision._stderr import without_lines
from kvision_export import flatbuffer

TURNS, WARMUP, RUNS = 4, 2, 20
WORST = 20  # images of a report
FEW = 100  # images, below which a single one is more than 1 %
FEW_RANGES = 32  # calibration images, below which activations leave the ranges that they gave
SMALLEST = 1e-30  # probability of which a logarithm is taken


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers of a network on some images.

    Attributes:
        probabilities: float32 `(images, classes)`.
        logits: what its softmax is given, less the mean over the classes.
    """

    probabilities: np.ndarray
    logits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Shares of images, against the labels.

    Attributes:
        top1, top5: of right answers.
        interval, interval5: in which top1 and top5 lie with 95 % (Wilson).
        drop: of top1 against the Keras model, on the same images.
        drop_interval: in which that lies with 95 %, by the images on which they differ (Agresti, Min 2005).
    """

    top1: float
    top5: float
    interval: tuple[float, float]
    interval5: tuple[float, float]
    drop: float
    drop_interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """Distance of a file from the Keras model.

    Attributes:
        agreement: share of images on which the first class is the same.
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


def answers(content: bytes, images: Sequence[np.ndarray], pixels: bool = True) -> Answers:
    """Answers of a file on images; arguments as for `predict`."""
    probabilities = predict(content, images, pixels)
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    end = graph.operators[-1]
    if flatbuffer.operator_name(model, end) == "DEQUANTIZE":
        end = next(op for op in graph.operators if end.inputs[0] in op.outputs)
    if flatbuffer.operator_name(model, end) != "SOFTMAX":
        return Answers(probabilities, _centred(np.log(np.maximum(probabilities, SMALLEST))))
    graph.outputs = end.inputs[:1]
    model.signatureDefs = []
    return Answers(probabilities, _centred(predict(flatbuffer.write(model), images, pixels)))


def fidelity(found: Answers, expected: Answers) -> Fidelity:
    """Compares a file's answers with those of the Keras model."""
    difference = np.abs(found.probabilities - expected.probabilities)
    logs = [answer.logits - _log_sum_exp(answer.logits) for answer in (expected, found)]
    divergence = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1)
    signal = float(np.square(expected.logits).sum())
    error = float(np.square(found.logits - expected.logits).sum())
    return Fidelity(
        agreement=share(found.probabilities.argmax(-1) == expected.probabilities.argmax(-1)),
        kl=0.0 if divergence.mean() < 0 else float(divergence.mean()),
        sqnr=float(10 * np.log10(max(signal, SMALLEST) / max(error, SMALLEST))),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        worst=np.argsort(-divergence)[:WORST].tolist(),
    )


def accuracy(probabilities: np.ndarray, labels: np.ndarray, expected: np.ndarray) -> Accuracy:
    """Compares probabilities with labels, and with how the Keras model's do."""
    right = probabilities.argmax(-1) == labels
    theirs = expected.argmax(-1) == labels
    top1 = share(right)
    top5 = share((np.argsort(-probabilities, axis=-1)[:, :5] == labels[:, None]).any(-1))
    count, lost, won = len(labels), (theirs & ~right).sum(), (right & ~theirs).sum()
    return Accuracy(
        top1=top1,
        top5=top5,
        interval=wilson(top1, count),
        interval5=wilson(top5, count),
        drop=float((lost - won) / count),
        drop_interval=paired_interval(lost, won, count),
    )


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Tolerance of a file: every bound that is set, but not agreement where top-1 is bounded and known.

    Attributes:
        difference: largest difference of a probability.
        agreement: least share of images with the Keras model's first class.
        drop: most that top-1 may fall, as a share.
    """

    difference: float | None = None
    agreement: float | None = None
    drop: float | None = None

    def refusal(self, difference: float, agreement: float, drop: float | None) -> str:
        """Bounds that are not kept; "" where all are. `drop` is None where there are no labels."""
        if not np.isfinite(difference):
            return "the output contains NaN or infinity"
        if self.difference is not None and difference > self.difference:
            return f"a probability differs by {difference:.1g}, not {self.difference:g} at the most"
        if self.drop is None or drop is None:
            if self.agreement is not None and agreement < self.agreement:
                return f"it agrees on {100 * agreement:.1f} %, not {100 * self.agreement:g} % at the least"
        elif drop > self.drop:
            return f"top-1 drops by {100 * drop:.2f} points, not {100 * self.drop:g} at the most"
        return ""


def remarks(count: int, labeled: bool, calibrating: int | None = None) -> list[str]:
    """Remarks on the images for a reader of measurements, a sentence each.

    Args:
        count: how many images the files are judged on.
        labeled: whether these have labels.
        calibrating: how many images give the ranges and choose the steps of int8; None for none.
    """
    sentences = []
    if not labeled:
        sentences.append(
            "Top-1 is left out, as the images have no labels; files are judged by their agreement with the "
            "Keras model."
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
    interpreter, feed = _open(content, 2, pixels)
    details = interpreter.get_output_details()[0]
    scale, zero_point = details["quantization"]
    outputs = []
    for image in images:
        feed(image)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(details["index"])[0])
    results = np.stack(outputs).astype(np.float32)
    return (results - zero_point) * np.float32(scale) if scale else results


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


def _log_sum_exp(logits):
    largest = logits.max(-1, keepdims=True)
    return largest + np.log(np.exp(logits - largest).sum(-1, keepdims=True))


def _centred(logits):
    return logits - logits.mean(-1, keepdims=True)


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
