"""From a dataset's name to batches."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kvision.data.cache import Disk, keep
from kvision.data.images import check_fit, decode, fit, random_crop
from kvision.data.sources import Source, open_source
from kvision.errors import UserError

AUGMENTATIONS = ("none", "crop", "crop_flip")
CACHES = ("none", "ram", "disk")


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
    data: str | Source,
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
    shard: tuple[int, int] = (0, 1),
    cache: str = "none",
    val_fraction: float = 0.2,
    allow_outside: bool = False,
) -> Data:
    """Opens a split of a dataset.

    Args:
        data: "digits", "folder:PATH", "csv:PATH", "tfrecord:GLOB" or "tfds:NAME"; or what `open_source` made
            of it, which already is of one split.
        split: "train", "val", "test" or "all", of those that the dataset has; "val" is its test images where
            it holds out no others.
        image_size: `(height, width)`; an image is resized and cut to it.
        channels: 3, or 1 for grey.
        batch_size: images a batch. Training batches are always full.
        training: shuffled and endless; else once, in order.
        augment: "none", "crop" (random box, resized) or "crop_flip" (mirrored half of the time too).
        min_crop_area: smallest share of an image's area that a random box covers.
        crop: without augmentation, the share of the resized image's side that is kept, in (0, 1].
        interpolation: without augmentation, "bilinear" or "bicubic".
        seed: of the order and the augmentation: the same seed gives the same batches.
        start: the number of images to skip; costs nothing.
        shard: `(index, count)`: of every `count` images in a row, this takes the one at `index`.
        cache: "ram" keeps images in memory once they are decoded, "disk" copies encoded ones to the user's
            cache folder, for storage that is slow.
        val_fraction: share of the images held out where the dataset has no split of its own.
        allow_outside: whether the paths of a CSV file may be absolute, or lead out of its folder.

    Raises:
        ValueError: a value outside its range.
        ValueError, FileNotFoundError: an unknown or empty dataset.
    """
    if augment not in AUGMENTATIONS:
        raise UserError(f"`augment` must be one of {', '.join(AUGMENTATIONS)}; got {augment!r}.")
    if cache not in CACHES:
        raise UserError(f"`cache` must be one of {', '.join(CACHES)}; got {cache!r}.")
    if not 0 < min_crop_area <= 1:
        raise UserError(f"`min_crop_area` must be in (0, 1]; got {min_crop_area}.")
    check_fit(crop, interpolation)
    source = (
        data if isinstance(data, Source) else open_source(data, split, channels, val_fraction, allow_outside)
    )
    image_of, labels = source.image, tf.constant(source.labels)
    if image_of(tf.constant(0, tf.int64)).dtype != tf.string:
        pass  # the images are in memory anyway
    elif cache == "disk" and source.files:
        image_of = keep(image_of, Disk(source.files), tf.string, ())
    elif cache == "ram":
        image_of = keep(
            lambda index: decode(source.image(index), channels), {}, tf.uint8, (None, None, channels)
        )

    def index_at(position):
        if not training:
            return position
        seeds = tf.stack([seed, position // source.size])
        return tf.random.experimental.index_shuffle(position % source.size, seeds, source.size - 1)

    def prepare(position):
        index = index_at(position)
        image, label = image_of(index), labels[index]
        if augment == "none":
            image = decode(image, channels) if image.dtype == tf.string else image
            image = fit(image, image_size, crop=crop, interpolation=interpolation)
        else:
            seeds = (seed, position)
            image = random_crop(image, image_size, min_area=min_crop_area, seed=seeds, channels=channels)
            if augment == "crop_flip":
                image = tf.image.stateless_random_flip_left_right(image, seeds)
        return position, tf.ensure_shape(image, (*image_size, channels)), label

    unreadable: list[str] = []

    def note(position):
        name = source.name_of(int(index_at(tf.constant(position, tf.int64))))
        if name not in unreadable:
            unreadable.append(name)

    stop = 2**62 if training else source.size
    batches = _batches(prepare, start + shard[0], stop, shard[1], batch_size, note, fill=training)
    return Data(batches.prefetch(2), source.class_names, source.size, unreadable)


def _batches(prepare, first, stop, step, size, note, *, fill) -> tf.data.Dataset:
    """Batches of what `prepare` makes of each `step`-th position from `first` up to `stop`.

    Positions at which it fails are noted and left out. With `fill`, what comes next in the batch (or the
    whole next batch) takes their places: so a batch follows from its positions alone, wherever a pass begins.
    """

    def end_of(begin):
        return tf.minimum(begin + size * step, stop)

    def batch_at(begin):
        positions = tf.data.Dataset.range(begin, end_of(begin), step)
        batch = positions.map(prepare, tf.data.AUTOTUNE).ignore_errors().batch(size)
        return batch.map(lambda *parts: (begin, *parts))

    def note_all(expected, begin, end, present):
        for missing in {*range(expected, begin, step), *range(begin, end, step)} - set(present.tolist()):
            note(missing)
        return np.int64(0)

    def check(expected, parts):
        begin, present, images, labels = parts
        end = end_of(begin)
        count = (end - begin + step - 1) // step
        whole = (begin == expected) & (tf.size(present, tf.int64) == count)
        noted = tf.cond(
            whole,
            lambda: tf.constant(0, tf.int64),
            lambda: tf.numpy_function(note_all, (expected, begin, end, present), tf.int64),
        )
        following = begin + size * step + tf.ensure_shape(noted, ())
        if not fill:
            return following, (tf.constant(1, tf.int64), begin, images, labels)
        takers = tf.searchsorted(present, begin + step * tf.range(size, dtype=tf.int64))
        takers = tf.minimum(takers, tf.size(present) - 1)
        images, labels = tf.cond(
            whole, lambda: (images, labels), lambda: (tf.gather(images, takers), tf.gather(labels, takers))
        )
        images = tf.ensure_shape(images, (size, *images.shape[1:]))
        times = 1 + (begin - expected) // (size * step)
        return following, (times, begin, images, tf.ensure_shape(labels, (size,)))

    starts = tf.data.Dataset.range(first, stop, size * step)
    batches = starts.interleave(
        batch_at, cycle_length=3, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if fill:
        found = batches.scan(tf.constant(first, tf.int64), check)
        return found.flat_map(lambda times, _, *batch: tf.data.Dataset.from_tensors(batch).repeat(times))
    _, *parts = tf.nest.flatten(batches.element_spec)
    empty = [tf.zeros([0, *part.shape[1:]], part.dtype) for part in parts]
    last = tf.data.Dataset.from_tensors((tf.constant(stop, tf.int64), *empty))  # shows a gap before the end
    found = batches.concatenate(last).scan(tf.constant(first, tf.int64), check)
    return found.filter(lambda _, begin, *__: begin < stop).map(lambda _, __, *batch: batch)
