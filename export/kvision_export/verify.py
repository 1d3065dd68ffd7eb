"""Measuring a TFLite file: its answers beside the Keras model's, its size, its speed."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

WARMUP, RUNS = 5, 40


@dataclass(frozen=True)
class Measured:
    """What was measured of one file.

    Attributes:
        mode: how it was converted.
        file: its name.
        size: in bytes.
        top1: share of the held-out images that it gets right.
        agreement: share on which its first class is the Keras model's.
        largest_difference: between its probabilities and the Keras model's, over all images and classes.
        mean_difference: of the absolute differences.
        latency_ms: median for one image by number of threads.
        accepted: whether it is within its mode's tolerance.
    """

    mode: str
    file: str
    size: int
    top1: float
    agreement: float
    largest_difference: float
    mean_difference: float
    latency_ms: dict[int, float]
    accepted: bool


def measure(
    mode: str,
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    expected: np.ndarray,
    tolerance: "Tolerance",
) -> Measured:
    """Runs a file on held-out images.

    Args:
        mode: how it was converted.
        path: of the `.tflite` file.
        images: float32 `(images, height, width, channels)` in [0, 255].
        labels: integer `(images,)`.
        expected: the Keras model's probabilities, `(images, classes)`.
        tolerance: what it has to keep.
    """
    probabilities = predict(path, images)
    difference = np.abs(probabilities - expected)
    top1 = accuracy(probabilities, labels)
    agreement = accuracy(probabilities, expected.argmax(-1))
    return Measured(
        mode=mode,
        file=path.name,
        size=path.stat().st_size,
        top1=top1,
        agreement=agreement,
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        latency_ms={threads: latency(path, images[0], threads) for threads in (1, 2)},
        accepted=tolerance.accepts(float(difference.max()), agreement, accuracy(expected, labels) - top1),
    )


@dataclass(frozen=True)
class Tolerance:
    """What a file has to keep: every bound that is set, but agreement or top-1 where both are.

    Attributes:
        difference: largest difference of a probability.
        agreement: least share of images with the Keras model's first class.
        drop: most that top-1 may fall, as a share.
    """

    difference: float | None = None
    agreement: float | None = None
    drop: float | None = None

    def accepts(self, difference: float, agreement: float, drop: float) -> bool:
        """Whether what was measured is within the bounds."""
        if not np.isfinite(difference) or (self.difference is not None and difference > self.difference):
            return False
        agrees = self.agreement is None or agreement >= self.agreement
        return agrees or (self.drop is not None and drop <= self.drop)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of the rows whose largest entry is the label's."""
    return float((probabilities.argmax(-1) == labels).mean())


def predict(path: Path, images: Sequence[np.ndarray]) -> np.ndarray:
    """A file's probabilities for images, float32 `(images, classes)`; uint8 inputs take rounded pixels."""
    interpreter, feed = _open(path, threads=2)
    output = interpreter.get_output_details()[0]["index"]
    probabilities = []
    for image in images:
        feed(image)
        interpreter.invoke()
        probabilities.append(interpreter.get_tensor(output)[0])
    return np.stack(probabilities)


def latency(path: Path, image: np.ndarray, threads: int) -> float:
    """Median milliseconds for one image, XNNPACK on, after a few runs to warm up."""
    interpreter, feed = _open(path, threads)
    feed(image)
    times = []
    for _ in range(WARMUP + RUNS):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[WARMUP:])


def _open(path, threads):
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]

    def feed(image):
        pixels = np.rint(image) if details["dtype"] == np.uint8 else image
        interpreter.set_tensor(details["index"], pixels.astype(details["dtype"])[None])

    return interpreter, feed
