"""Latency of files, measured in turns."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kvision_export import runner

TURNS, WARMUP, RUNS = 4, 2, 20


def latencies(
    files: Mapping[str, bytes | Path], image: np.ndarray, threads: int, opener: Callable = runner.open_file
) -> dict[str, float]:
    """Milliseconds of each file for one image, XNNPACK on, all files in turns.

    On one thread the thread's own time counts, without what other processes take; on more, the time that
    passes. The first file's figure is its median; another's is that times the median of the ratios to it, run
    by run: repeated, such a ratio varies by 0.6 % where that of two medians varies by 2 %.

    Args:
        files: the files by name.
        image: float32 `(height, width, channels)` in [0, 255], see `inputs`.
        threads: number of threads.
        opener: opens a file, as `runner.open_file` does.
    """
    times = np.concatenate(
        [_turn([*files.values()], image, threads, turn % 2 > 0, opener) for turn in range(TURNS)]
    )
    ratios = np.median(times / times[:, :1], axis=0)
    return dict(zip(files, (1000 * np.median(times[:, 0]) * ratios).tolist(), strict=True))


def milliseconds(time: float) -> str:
    """A time with three significant digits: "0.0514", "5.14", "514"."""
    return f"{time:.{max(0, 2 - math.floor(math.log10(time)))}f}" if 0 < time < 100 else f"{time:.0f}"


def _turn(files, image, threads, backwards, opener) -> np.ndarray:
    """Seconds `(runs, files)`, of files opened in their order or backwards: the first is 1 or 2 % slower."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    order = range(len(files))
    opened = {number: opener(files[number], threads) for number in (order[::-1] if backwards else order)}
    for _, feed in opened.values():
        feed(image)
    times = np.zeros((WARMUP + RUNS, len(files)))
    for row in times:
        for number, (interpreter, _) in opened.items():
            start = clock()
            interpreter.invoke()
            row[number] = clock() - start
    return times[WARMUP:]
