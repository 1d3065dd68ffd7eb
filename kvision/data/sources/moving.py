"""Light squares that move over a dark ground, drawn from a seed: as clips, and as series of numbers."""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kvision.data.series import Series, statistics
from kvision.data.sources.drawing import noisy
from kvision.data.sources.source import Options, Source

COUNTS = {"train": 1500, "val": 300}
SIZE, FRAMES = 32, 8
CLASSES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # and steps across and down
SIDES = (6, 10)  # smallest and largest
SPEEDS = (1.5, 3.0)  # pixels a frame
DARK, LIGHT = (0, 100), (155, 255)  # levels of the background and of the square
COLUMNS, JITTER = ("x", "y", "side"), 0.3  # of series, and their noise's standard deviation in pixels


class Movement(NamedTuple):
    """A clip, uint8 `(8, 32, 32, 3)`, and the centre and side of its square, float32 `(8, 3)`, with noise."""

    clip: np.ndarray
    series: np.ndarray


def squares(split: str, options: Options) -> Source:
    """1,500 movements for training and 300 others for validation, as many of each direction."""
    seeds = [seed for seed, name in enumerate(COUNTS) if split in ("all", name)]
    movements = [movement for seed in seeds for movement in _movements(seed)]
    labels = np.array(
        [index % len(CLASSES) for seed in seeds for index in range(len(_movements(seed)))], np.int64
    )
    if options.target == "sequence":
        values = np.concatenate([movement.series for movement in movements])
        all_rows = np.full(len(values), True)
        series = Series(
            COLUMNS,
            values,
            FRAMES * np.arange(len(labels) + 1),
            all_rows,
            all_rows,
            *statistics(np.concatenate([movement.series for movement in _movements(0)])),
            [f"sequence {index}" for index in range(len(labels))],
        )
        return Source(tuple(CLASSES), labels, None, encoded=False, series=series)
    clips = np.stack([movement.clip for movement in movements])
    if options.channels == 1:
        clips = tf.image.rgb_to_grayscale(clips).numpy()
    return Source(
        tuple(CLASSES),
        labels,
        None,
        encoded=False,
        clip=lambda index, choose, exif: iter(clips[index][choose(FRAMES)]),
    )


def move(seed: int, index: int) -> Movement:
    """Draws a movement, the same one for the same arguments; `index` modulo 4 is its class.

    A square that leaves the frame comes in again on the other side, and its way lies anywhere: so each frame
    by itself looks the same in all classes. In the series its centre goes on outside the frame.
    """
    random = np.random.default_rng([seed, index])
    step = random.uniform(*SPEEDS) * np.array([*CLASSES.values()][index % len(CLASSES)])
    centres = random.uniform(0, SIZE, 2) + (np.arange(FRAMES)[:, None] - (FRAMES - 1) / 2) * step
    side = int(random.integers(SIDES[0], SIDES[1] + 1))
    behind, colour = random.uniform(*DARK, 3), random.uniform(*LIGHT, 3)
    pixels = np.arange(SIZE) + 0.5
    offsets = (pixels - centres[..., None] + SIZE / 2) % SIZE - SIZE / 2  # (frames, 2, pixels)
    columns, rows = np.moveaxis(np.abs(offsets) < side / 2, 1, 0)
    inside = rows[:, :, None] & columns[:, None, :]
    clip = noisy(random, np.where(inside[..., None], colour, behind))
    series = np.column_stack([centres, np.full(FRAMES, side)]) + random.normal(0, JITTER, (FRAMES, 3))
    return Movement(clip, series.astype(np.float32))


@functools.cache
def _movements(seed) -> list[Movement]:
    return [move(seed, index) for index in range([*COUNTS.values()][seed])]
