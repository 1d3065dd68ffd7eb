"""From a dataset's name to batches."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kvision.data.images import check_fit, fit, random_crop
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
    unreadable: list[str]


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
    crop: float = 1.0,
    interpolation: str = "bilinear",
    seed: int = 0,
    start: int = 0,
    val_fraction: float = 0.2,
) -> Data:
    """Opens a split of a dataset.

    Args:
        data: "digits", "folder:PATH" or "tfds:NAME".
        split: "train" or "val".
        image_size: `(height, width)`; an image is resized and cut to it.
        channels: 3, or 1 for grey.
        batch_size: images a batch. Training batches are always full.
        training: shuffled and endless; else once, in order.
        augment: "none", "crop" (random box, resized) or "crop_flip" (mirrored half of the time too).
        min_crop_area: smallest share of an image's area that a random box covers.
        crop: without augmentation, the share of the resized image's side that is kept, in (0, 1].
        interpolation: without augmentation, "bilinear" or "bicubic".
        seed: of the order and the augmentation: the same seed gives the same batches.
        start: the number of images to skip of an endless pass; costs nothing but for `tfds:`.
        val_fraction: share of the images held out where the dataset has no split of its own.

    Raises:
        ValueError: a value outside its range.
        ValueError, FileNotFoundError: an unknown or empty dataset.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"`augment` must be one of {', '.join(AUGMENTATIONS)}; got {augment!r}.")
    if not 0 < min_crop_area <= 1:
        raise ValueError(f"`min_crop_area` must be in (0, 1]; got {min_crop_area}.")
    check_fit(crop, interpolation)
    if not 0 < val_fraction < 1:
        raise ValueError(f"`val_fraction` must be between 0 and 1; got {val_fraction}.")
    source = open_source(data, split, channels, val_fraction)
    unreadable: list[str] = []
    if source.stream is None:
        elements = _indexed(source, training, seed, start, unreadable)
    else:
        elements = _streamed(source.stream, training, seed, start)

    def prepare(position, image, label):
        if augment == "none":
            image = fit(image, image_size, crop=crop, interpolation=interpolation)
        else:
            image = random_crop(image, image_size, min_area=min_crop_area, seed=(seed, position))
        if augment == "crop_flip":
            image = tf.image.stateless_random_flip_left_right(image, (seed, position))
        return tf.ensure_shape(image, (*image_size, channels)), label

    batches = elements.map(prepare, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=training)
    return Data(batches.prefetch(2), source.class_names, source.size, unreadable)


def _indexed(source: Source, training, seed, start, unreadable) -> tf.data.Dataset:
    """Positions, images and labels in an order that follows from the seed; unreadable files are noted.

    The image at a position is known without those before it, so that skipping costs nothing. A file
    that cannot be decoded leaves a gap in the positions, by which it is found and named.
    """
    last = source.size - 1

    if not any(_readable(source, index) for index in range(source.size)):  # stops at the first
        raise ValueError(f"None of the {source.size} files is an image.")

    def index_at(position):
        if not training:
            return position
        epoch = position // source.size
        return tf.random.experimental.index_shuffle(
            position % source.size, seed=tf.stack([seed, epoch]), max_index=last
        )

    def element(position):
        image, label = source.element(index_at(position))
        return position, image, label

    def note(first, stop):
        for position in range(first, stop):
            name = source.name_of(int(index_at(tf.constant(position, tf.int64))))
            if name not in unreadable:
                unreadable.append(name)
        return np.int64(stop)

    def find_gaps(expected, element):
        position = element[0]
        stop = tf.cond(
            position > expected,
            lambda: tf.numpy_function(note, (expected, position), tf.int64, stateful=True),
            lambda: position,
        )
        return tf.ensure_shape(stop, ()) + 1, element

    stop = np.iinfo(np.int64).max if training else source.size
    elements = tf.data.Dataset.range(start, stop).map(element, tf.data.AUTOTUNE).ignore_errors()
    image = tf.zeros([1 if size is None else size for size in elements.element_spec[1].shape])
    end = (
        tf.constant(stop, tf.int64),
        tf.cast(image, elements.element_spec[1].dtype),
        tf.constant(0, tf.int64),
    )
    elements = elements.concatenate(tf.data.Dataset.from_tensors(end))  # shows a gap before the end
    elements = elements.scan(tf.constant(start, tf.int64), find_gaps)
    return elements.filter(lambda position, *_: position < stop)


def _readable(source: Source, index: int) -> bool:
    try:
        source.element(tf.constant(index, tf.int64))
    except tf.errors.OpError:
        return False
    return True


def _streamed(stream, training, seed, start) -> tf.data.Dataset:
    """Positions, images and labels of a dataset that has no indices."""
    if training:
        stream = stream.shuffle(SHUFFLE_BUFFER, seed=seed).repeat()
    return stream.enumerate().map(lambda position, element: (position, *element)).skip(start)
