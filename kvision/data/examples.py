"""Examples of a split: a function for each kind of target, from a source to `Examples`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kvision.data.cache import Disk, keep
from kvision.data.captions import Captions
from kvision.data.clips import chosen
from kvision.data.decoding import called
from kvision.data.masks import IGNORED, checked_mask, decode_mask
from kvision.data.objects import padded
from kvision.data.proposals import proposals_in
from kvision.data.sources import Source
from kvision.data.transforms import AUGMENTATIONS, OF_OBJECTS, OTHERS, Frame
from kvision.errors import UserError
from kvision.names import counted

MOST_OBJECTS = 120  # of several images together, unless one has more; as YOLOX has it for its mosaics


@dataclass(frozen=True)
class Examples:
    """The examples of a split.

    Attributes:
        count: how many an epoch has.
        make: from an index tensor and a seed, two integers of which the second is the example's position in
            the training, to a dict of tensors.
        images: from the same to the images of the source that the example is made of, for messages.
    """

    count: int
    make: Callable[..., dict]
    images: Callable[..., list[int]] = lambda index, seed: [int(index)]


def of_images(
    source: Source,
    frame: Frame,
    *,
    target: str,
    augment: str,
    training: bool,
    cache: str,
    own_size: bool,
    strict: bool,
    proposals: int,
) -> Examples:
    """An image and its label or labels, its mask or its boxes; the arguments are those of `load`."""
    objects, others = source.objects, OTHERS.get(augment, 0)
    most = 0
    if objects:
        objects.report(strict)
        if training and not len(objects.boxes):
            raise UserError(f"None of the {counted(source.size, 'image')} to train on has an object.")
        most = min((1 + others) * objects.most, max(objects.most, MOST_OBJECTS))
    elif others:
        raise UserError(f"`augment` {augment!r} needs boxes; got the target {target!r}.")
    kept = _kept(source, cache, frame)

    def others_at(seed):
        first, position = seed
        seeds = (first, -1 - position)  # other numbers than those of the augmentation
        return tf.random.stateless_uniform((others,), seeds, 0, source.size, tf.int64)

    def read(index):
        """An example; its objects are in pixels of its image."""
        example = kept.example(index)
        if objects or proposals:
            example["image"] = frame.pixels(example["image"])
        if objects:
            example |= objects.of(index, tf.shape(example["image"])[:2])
        if proposals:
            example["proposals"] = proposals_in(example["image"])[: proposals // (1 + others)]
        return example

    def make(index, seed):
        example = read(index)
        if others:
            example["others"] = [read(index) for index in tf.unstack(others_at(seed))]
        if "mask" in example:
            image = frame.pixels(example["image"])
            classes = len(source.places or source.class_names)
            mask = checked_mask(decode_mask(example["mask"]), tf.shape(image)[:2], classes)
            if source.places:
                places = tf.constant(source.places, tf.int32)
                mask = tf.where(mask == IGNORED, IGNORED, tf.gather(places, tf.minimum(mask, classes - 1)))
            example |= {"image": image, "mask": mask}
        if target == "labels" and source.single_labels is not None:
            example["labels"] = tf.one_hot(example.pop("label"), len(source.class_names), dtype=tf.uint8)
        moved = AUGMENTATIONS[augment](example, seed, frame)
        if own_size:
            moved |= {name: example[name] for name in ("mask", *OF_OBJECTS) if name in example}
        if objects:
            area = moved.pop("area")
            of_image = {name: moved[name] for name in OF_OBJECTS} | ({"area": area} if own_size else {})
            moved |= padded(of_image, most)
            moved |= {"size": tf.shape(example["image"])[:2]} if own_size else {}
        if proposals:
            moved |= padded({"proposals": moved["proposals"]}, proposals)
        return moved | {"image": tf.ensure_shape(moved["image"], (*frame.size, frame.channels))}

    def images(index, seed):
        return [int(index), *(others_at(seed).numpy().tolist() if others else ())]

    return Examples(source.size, make, images)


def of_captions(captions: Captions, images: Examples, *, length: int, training: bool) -> Examples:
    """An image with one of its captions in training, or with all of them as references.

    Args:
        captions: of the images.
        images: the examples without captions.
        length: of the captions.
        training: whether each caption is an example, not each image.
    """
    captions.report(length)
    tokens, owners = captions.tokens(length), captions.owners
    fields = {"tokens": tokens}
    if not training:
        owners, firsts = np.unique(owners, return_index=True)
        fields = {"tokens": tokens[firsts], "references": captions.references(length)}
    owners, fields = tf.constant(owners), {name: tf.constant(field) for name, field in fields.items()}

    def make(index, seed):
        return images.make(owners[index], seed) | {name: field[index] for name, field in fields.items()}

    return Examples(len(owners), make, lambda index, seed: images.images(owners[index], seed))


def of_clips(source: Source, frame: Frame, *, augment: str, length: int, training: bool) -> Examples:
    """Frames of a clip, all of them augmented alike, and its label; the arguments are those of `load`."""
    clip, labels = _given(source.clip, "clip"), tf.constant(_given(source.labels, "clip"))

    def read(request):
        index, *numbers = request.tolist()
        choose = functools.partial(chosen, length=length, numbers=numbers if training else None)
        return np.stack([*clip(int(index), choose, frame.exif)])

    def make(index, seed):
        numbers = tf.random.stateless_uniform((2,), (seed[0], -1 - seed[1]), dtype=tf.float64)
        request = tf.concat([[tf.cast(index, tf.float64)], numbers], 0)
        frames = tf.ensure_shape(called(read, request, tf.uint8), (length, None, None, frame.channels))
        frames = tf.map_fn(
            lambda image: AUGMENTATIONS[augment]({"image": image}, seed, frame)["image"],
            frames,
            fn_output_signature=tf.TensorSpec((*frame.size, frame.channels), tf.float32),
        )
        return {"image": frames, "label": labels[index]}

    return Examples(source.size, make)


def of_windows(source: Source, *, length: int, horizon: int, training: bool) -> Examples:
    """Rows of a series and those behind them; the arguments are those of `load`."""
    series = _given(source.series, "next")
    rows, values, ends = map(tf.constant, (series.targets(length), series.values, series.ends))

    def make(index, seed):
        row = rows[index]
        example = {"series": tf.ensure_shape(values[row - length : row], (length, values.shape[1]))}
        example["next"] = values[row]
        if not training:
            future = row + tf.range(horizon, dtype=tf.int64)
            ahead = tf.gather(values, tf.minimum(future, ends[row] - 1))
            example["future"] = tf.where((future < ends[row])[:, None], ahead, np.nan)
        return example

    return Examples(len(rows), make)


def of_sequences(source: Source, *, length: int) -> Examples:
    """The first `length` rows of a series, zeros behind its end, and its label."""
    series, labels = _given(source.series, "sequence"), tf.constant(_given(source.labels, "sequence"))
    series.report(length)
    values, starts = tf.constant(series.values), tf.constant(series.starts)

    def make(index, seed):
        rows = values[starts[index] : tf.minimum(starts[index + 1], starts[index] + length)]
        return padded({"series": rows}, length) | {"label": labels[index]}

    return Examples(source.size, make)


def _given(part, target):
    """A part of a source that a target needs."""
    if part is None:
        raise UserError(
            f"The source was opened for another target; `open_source` with {target!r} was expected."
        )
    return part


def _kept(source: Source, cache: str, frame: Frame) -> Source:
    """The source, of which what was read once is kept as `load` says."""
    if not source.encoded or not source.image:  # it is in memory anyway
        return source
    image = source.image
    if cache == "disk" and source.files:
        files = {"image": source.files, **source.target_files}
        kept = {name: keep(source.fields[name], Disk(files[name].key), tf.string, ()) for name in files}
    elif cache == "ram":
        shape = (None, None, frame.channels)
        kept = {"image": keep(lambda index: frame.pixels(image(index)), {}, tf.uint8, shape)}
        if "mask" in source.targets:

            def mask(index):
                return tf.cast(decode_mask(source.targets["mask"](index)), tf.uint16)

            kept["mask"] = keep(mask, {}, tf.uint16, (None, None))
    else:
        return source
    return replace(source, image=kept.pop("image"), targets={**source.targets, **kept})
