"""From a dataset's name to batches."""

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from kvision.data.images import fit, random_crop
from kvision.data.sources import Source, open_source

AUGMENTATIONS = ("none", "crop", "crop_flip")
SHUFFLE_BUFFER = 10_000  # of streams; what has an index is shuffled whole


@dataclass(frozen=True)
class Data:
    """A split, ready to use.

    Attributes:
        dataset: batches of float32 images in [0, 255], `(batch, height, width, channels)`, and int64
            labels `(batch,)`.
        class_names: in the order of the labels.
        size: number of images; unreadable ones are counted.
        unreadable: the names of the files that were no images, as they are met.
    """

    dataset: tf.data.Dataset
    class_names: tuple[str, ...]
    size: int
    unreadable: list[str] = field(default_factory=list)


def load(
    data: str,
    split: str,
    *,
    image_size: tuple[int, int],
    channels: int = 3,
    batch_size: int = 32,
    training: bool = False,
    augment: str = "none",
    min_crop_area: float = 0.08,
    seed: int = 0,
    start: int = 0,
    val_fraction: float = 0.2,
) -> Data:
    """Opens a split of a dataset.

    Args:
        data: "digits", "folder:PATH" or "tfds:NAME".
        split: "train" or "val".
        image_size: `(height, width)`; an image is cut to this aspect ratio and resized.
        channels: 3, or 1 for grey.
        batch_size: images a batch. Training batches are always full.
        training: shuffled and endless; else once, in order.
        augment: "none", "crop" (random box, resized) or "crop_flip" (mirrored half of the time too).
        min_crop_area: smallest share of an image's area that a random box covers.
        seed: of the order and the augmentation: the same seed gives the same batches.
        start: the number of images to skip of an endless pass; costs nothing but for `tfds:`.
        val_fraction: share of the images held out where the dataset has no split of its own.

    Raises:
        ValueError, FileNotFoundError: an unknown or empty dataset.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"`augment` must be one of {', '.join(AUGMENTATIONS)}; got {augment!r}.")
    if not 0 < min_crop_area <= 1:
        raise ValueError(f"`min_crop_area` must be in (0, 1]; got {min_crop_area}.")
    if not 0 < val_fraction < 1:
        raise ValueError(f"`val_fraction` must be between 0 and 1; got {val_fraction}.")
    source = open_source(data, split, channels, val_fraction)
    result = Data(None, source.class_names, source.size)  # the dataset follows

    def finish(position, image, label):
        seeds = tf.stack([tf.constant(seed, tf.int64), position])
        if augment == "none":
            image = fit(image, image_size)
        else:
            image = random_crop(image, image_size, min_area=min_crop_area, seed=seeds)
        if augment == "crop_flip":
            image = tf.image.stateless_random_flip_left_right(image, seeds)
        return position, tf.ensure_shape(image, (*image_size, channels)), label
