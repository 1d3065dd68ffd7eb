"""Pictures that are drawn from a seed: circles, squares and triangles on a noisy background."""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kvision.data.objects import Box, gather
from kvision.data.sources import moving, two_shapes
from kvision.data.sources.drawing import CONTRAST, SHAPES, background, covered, noisy
from kvision.data.sources.source import Options, Source, check_divided

CLASSES = ("background", *SHAPES)
SIDES = (16, 48)  # smallest and largest side of a shape's box
MOST = 4  # shapes in a picture
TRIES = 20  # to find a place that is free


class Pictures(NamedTuple):
    """How many pictures are drawn for each split, and their height and width."""

    counts: dict[str, int]
    size: int


WITH_MASKS = Pictures({"train": 400, "val": 100}, 96)
WITH_BOXES = Pictures({"train": 600, "val": 150}, 128)


class Shape(NamedTuple):
    """A shape in a picture: its class, the first row and column of its box, and those behind the last."""

    label: int
    top: int
    left: int
    bottom: int
    right: int


class Picture(NamedTuple):
    """An image, uint8 `(height, width, 3)`, its mask, uint8 `(height, width)`, and what is in it."""

    image: np.ndarray
    mask: np.ndarray
    shapes: list[Shape]


def shapes(_, split: str, options: Options) -> Source:
    """Pictures for training and others for validation, whatever `val_fraction`.

    With masks, 400 and 100 of 96 x 96 pixels, and the background is a class; with boxes, 600 and 150 of
    128 x 128. With captions see `two_shapes`, for clips and sequences `moving`.
    """
    check_divided(split, "'shapes'")
    if options.target == "tokens":
        return two_shapes.pictures(split, options)
    if options.target in ("clip", "sequence"):
        return moving.squares(split, options)
    drawn = WITH_BOXES if options.target == "boxes" else WITH_MASKS
    pictures = [
        picture
        for seed, (name, count) in enumerate(drawn.counts.items())
        if split in ("all", name)
        for picture in _pictures(seed, count, drawn.size)
    ]
    images = tf.constant(np.stack([picture.image for picture in pictures]))
    if options.channels == 1:
        images = tf.image.rgb_to_grayscale(images)
    if options.target == "boxes":
        boxes = [
            Box(place, (shape.left, shape.top, shape.right, shape.bottom), shape.label)
            for place, picture in enumerate(pictures)
            for shape in picture.shapes
        ]
        places = {label: label - 1 for label in range(1, len(CLASSES))}
        objects = gather(boxes, places, len(pictures), str, [(drawn.size, drawn.size)] * len(pictures))
        return Source(
            CLASSES[1:],
            None,
            lambda index: images[index],
            encoded=False,
            objects=objects,
            count=len(pictures),
        )
    masks = tf.constant(np.stack([picture.mask for picture in pictures]))
    return Source(
        CLASSES,
        None,
        lambda index: images[index],
        encoded=False,
        targets={"mask": lambda index: masks[index]},
        count=len(pictures),
    )


def draw(seed: int, index: int, size: int = WITH_MASKS.size) -> Picture:
    """Draws a picture, the same one for the same arguments.

    One to four shapes that do not overlap, each of a random colour that differs from the background's.
    """
    random = np.random.default_rng([seed, index])
    image, mask = background(random, size), np.zeros((size, size), np.uint8)
    placed = []
    for _ in range(random.integers(1, MOST + 1)):
        for _ in range(TRIES):
            side = int(random.integers(SIDES[0], SIDES[1] + 1))
            top, left = random.integers(0, size - side + 1, 2).tolist()
            if not mask[top : top + side, left : left + side].any():
                break
        else:
            continue
        label = int(random.integers(1, len(CLASSES)))
        inside = covered(CLASSES[label], top, left, side, size)
        behind = image[inside].mean(0)
        colour = random.uniform(0, 255, 3)
        while np.abs(colour - behind).max() < CONTRAST:
            colour = random.uniform(0, 255, 3)
        image[inside], mask[inside] = colour, label
        ys, xs = np.nonzero(inside)
        placed.append(
            Shape(label, *(int(place) for place in (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)))
        )
    return Picture(noisy(random, image), mask, placed)


@functools.cache
def _pictures(seed, count, size) -> list[Picture]:
    return [draw(seed, index, size) for index in range(count)]
