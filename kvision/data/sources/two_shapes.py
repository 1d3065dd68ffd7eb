"""Pictures of two shapes that are drawn from a seed, with a sentence about each."""

import functools

import numpy as np
import tensorflow as tf

from kvision.data.captions import Captions
from kvision.data.sources.drawing import CONTRAST, SHAPES, background, covered, noisy
from kvision.data.sources.source import Options, Source
from kvision.vocabulary import Vocabulary

COUNTS = {"train": 3000, "val": 300}
SIZE = 64
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (235, 215, 50)}
SIDES = ((20, 26), (12, 15))  # smallest and largest side of the larger and the smaller shape's box
RELATIONS = (("above", "below"), ("left of", "right of"))  # of rows and columns
PLAIN = 2  # how many times as far apart in the direction that the sentence names as in the other


def pictures(split: str, options: Options) -> Source:
    """3,000 pictures of 64 x 64 pixels for training and 300 others for validation."""
    seeds = [seed for seed, name in enumerate(COUNTS) if split in ("all", name)]
    images, texts = zip(*[picture for seed in seeds for picture in _pictures(seed)], strict=True)
    images = tf.constant(np.stack(images))
    if options.channels == 1:
        images = tf.image.rgb_to_grayscale(images)
    vocabulary = Vocabulary.of_texts(
        (text for _, text in _pictures(0)), options.min_word_count, options.max_words
    )
    return Source(
        vocabulary.names,
        None,
        lambda index: images[index],
        encoded=False,
        captions=Captions([(text,) for text in texts], vocabulary),
        count=len(texts),
    )


def draw(seed: int, index: int) -> tuple[np.ndarray, str]:
    """Draws a picture, the same one for the same arguments.

    Returns:
        uint8 `(64, 64, 3)`, and a sentence such as "a red circle left of a blue square", in which the larger
        shape comes first. Their colours differ.
    """
    random = np.random.default_rng([seed, index])
    while True:  # until they lie plainly in one direction
        sides = np.array([random.integers(least, most + 1) for least, most in SIDES])
        corners = random.integers(0, SIZE - sides[:, None] + 1, (2, 2))  # rows and columns
        apart = np.subtract(*(corners + sides[:, None] / 2))
        axis = int(np.abs(apart).argmax())
        if abs(apart[axis]) >= max(sides.sum() / 2, PLAIN * abs(apart[1 - axis])):
            break
    shapes = [SHAPES[place] for place in random.integers(len(SHAPES), size=2)]
    colours = random.permutation([*COLOURS])[:2].tolist()
    levels = [np.array(COLOURS[colour]) for colour in colours]
    image = background(random, SIZE)
    while min(np.abs(image - level).max(-1).min() for level in levels) < CONTRAST:
        image = background(random, SIZE)
    for shape, (top, left), side, level in zip(shapes, corners, sides, levels, strict=True):
        image[covered(shape, top, left, side, SIZE)] = level
    relation = RELATIONS[axis][int(apart[axis] > 0)]
    [first, second] = [f"a {colour} {shape}" for colour, shape in zip(colours, shapes, strict=True)]
    return noisy(random, image), f"{first} {relation} {second}"


@functools.cache
def _pictures(seed) -> list[tuple[np.ndarray, str]]:
    return [draw(seed, index) for index in range([*COUNTS.values()][seed])]
