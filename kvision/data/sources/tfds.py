"""TensorFlow Datasets."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.data import records
from kvision.data.cache import keep_arrays
from kvision.data.identity import trace
from kvision.data.masks import IGNORED, classes_in, decode_mask
from kvision.data.objects import Box, Objects, gather
from kvision.data.sources.source import Options, Source, check_divided, part, parts
from kvision.errors import UserError
from kvision.names import listed, say_once, shown
from kvision.spec import did_you_mean

PATIENCE = 5.0  # seconds
OWN_NAMES = {"train": "train", "val": "validation", "test": "test"}


def tfds(name: str, split: str, options: Options) -> Source:
    """A dataset of TensorFlow Datasets, prepared as TFRecords: "image", and "label", a mask or boxes.

    A mask is a `LabeledImage`, or else the only other image of one channel. The classes of that are the
    values that occur, in their order. Boxes are the only sequence of a `BBoxFeature` and a `ClassLabel`, such
    as "objects"; those that are "is_crowd" or "is_difficult" are ignored.
    """
    import tensorflow_datasets

    try:
        with _said_if_slow(f"Opening 'tfds:{name}': TensorFlow Datasets asks its server for it."):
            builder = tensorflow_datasets.builder(name)
    except tensorflow_datasets.core.DatasetNotFoundError:
        known = tensorflow_datasets.list_builders()
        raise UserError(f"TensorFlow Datasets has no {name!r}. {did_you_mean(name, known)}") from None
    except Exception as error:  # a name, configuration or version that it cannot read
        raise UserError(f"TensorFlow Datasets cannot open {name!r}: {_first_words(error)}") from None
    features: Any = builder.info.features or {}
    kinds = tensorflow_datasets.features
    if options.target == "label":
        key, kind = "label", kinds.ClassLabel
    elif options.target == "mask":
        key, kind = _mask_key(features, kinds), kinds.Image
    else:
        key, kind = _boxes_key(features, kinds), kinds.Sequence
    wanted = {"image": kinds.Image, key: kind}
    if not all(one in features and isinstance(features[one], kind) for one, kind in wanted.items()):
        what = {
            "label": "image classification with 'image' and a class as 'label'",
            "mask": "semantic segmentation with 'image' and one mask, an image of one channel",
            "boxes": "object detection with 'image' and one sequence of boxes and classes",
        }
        raise UserError(
            f"'tfds:{name}' is not a dataset of {what[options.target]}: "
            f"it has {listed(features, 8) or 'no features'}."
        )
    try:
        with _said_if_slow(f"Preparing 'tfds:{name}', which TensorFlow Datasets downloads once."):
            builder.download_and_prepare()
    except OSError:
        raise
    except Exception as error:  # what cannot be downloaded, or must be by hand
        raise UserError(f"TensorFlow Datasets cannot prepare {name!r}: {_first_words(error)}") from None
    if builder.info.file_format != tensorflow_datasets.core.FileFormat.TFRECORD:
        raise UserError(f"'tfds:{name}' is prepared as {builder.info.file_format}; tfrecord was expected.")
    there = [ours for ours, theirs in OWN_NAMES.items() if theirs in builder.info.splits]
    whole = there == ["train"]
    if whole:
        check_divided(split, f"'tfds:{name}'")
    used = there if whole else parts(split, there, f"'tfds:{name}'")
    paths = [str(path) for own in used for path in builder.info.splits[OWN_NAMES[own]].filepaths]
    encoded = {
        one: tensorflow_datasets.decode.SkipDecoding()
        for one in {"image", key}
        if isinstance(features[one], kinds.Image)
    }

    def example(record):
        return features.deserialize_example(record, decoders=encoded)

    def label_of(record):
        return (example(record)["label"] if key == "label" else tf.constant(0, tf.int64)), ""

    index = records.read_index(paths, f"tfds:{name}" if key == "label" else f"tfds:{name}, {key}", label_of)
    everything = range(len(index.offsets))
    chosen = np.array(part(everything, split, options.val_fraction) if whole else everything)
    read = records.reader(paths, index, chosen)

    def image(place):
        return example(read(place))["image"]

    def name_of(place):
        return index.name(paths, chosen[place])

    files = index.files_of(paths, chosen)
    if key == "label":
        return Source(tuple(features[key].names), index.labels[chosen], image, name_of, files, divided=whole)

    if options.target == "boxes":
        names, objects = _objects(
            features[key], lambda record: example(record)[key], paths, chosen, name_of, kinds
        )
        return Source(names, None, image, name_of, files, objects=objects, count=len(chosen), divided=whole)

    def mask(place):
        return example(read(place))[key]

    everywhere = [str(path) for own in there for path in builder.info.splits[OWN_NAMES[own]].filepaths]
    names, mask = _classes(features[key], mask, lambda record: example(record)[key], everywhere)
    targets = {"mask": mask}
    return Source(names, None, image, name_of, files, targets=targets, count=len(chosen), divided=whole)


@contextlib.contextmanager
def _said_if_slow(text: str) -> Iterator[None]:
    """Prints a line if what is done within takes longer than a user waits without one."""
    timer = threading.Timer(PATIENCE, say_once, [text])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _mask_key(features, kinds) -> str:
    """The name of the only feature that is a mask; "" where there is none, or more than one."""
    grey = [key for key, kind in features.items() if isinstance(kind, kinds.Image) and kind.shape[-1] == 1]
    named = [key for key in grey if isinstance(features[key], kinds.LabeledImage)]
    found = named or [key for key in grey if key != "image"]
    return found[0] if len(found) == 1 else ""


def _boxes_key(features, kinds) -> str:
    """The name of the only feature that is a sequence of boxes and classes; "" for none, or more than one."""

    def is_boxes(feature):
        inner = feature.feature
        parts = list(inner.values()) if isinstance(inner, kinds.FeaturesDict) else []
        return all(
            any(isinstance(part, kind) for part in parts) for kind in (kinds.BBoxFeature, kinds.ClassLabel)
        )

    found = [key for key, kind in features.items() if isinstance(kind, kinds.Sequence) and is_boxes(kind)]
    return found[0] if len(found) == 1 else ""


def _objects(feature, of_record: Callable, paths, chosen, name_of, kinds) -> tuple[tuple[str, ...], Objects]:
    """The names of the classes, and the objects of the chosen records, from a pass that is kept."""
    inner = dict(feature.feature.items())
    [box, *_] = [key for key, kind in inner.items() if isinstance(kind, kinds.BBoxFeature)]
    [label, *_] = [key for key, kind in inner.items() if isinstance(kind, kinds.ClassLabel)]
    ignored = next((key for key in ("is_crowd", "is_difficult") if key in inner), None)

    def arrays():
        all_records = list(
            tf.data.TFRecordDataset(paths).map(of_record, tf.data.AUTOTUNE).as_numpy_iterator()
        )
        counts = [len(record[label]) for record in all_records]
        return {
            "records": np.repeat(np.arange(len(counts)), counts),
            "boxes": np.concatenate([record[box] for record in all_records]).reshape(-1, 4),
            "labels": np.concatenate([record[label] for record in all_records]),
            "crowd": np.concatenate([record[ignored or label] for record in all_records])
            * (ignored is not None),
        }

    kept = keep_arrays("objects", "\n".join([f"{box} {label} {ignored}, 1", *map(trace, paths)]), arrays)
    place_of = dict(zip(chosen.tolist(), range(len(chosen)), strict=True))
    boxes = [
        Box(place_of[record], (left, top, right, bottom), label, bool(crowd))
        for record, (top, left, bottom, right), label, crowd in zip(
            *(kept[name].tolist() for name in ("records", "boxes", "labels", "crowd")), strict=True
        )
        if record in place_of
    ]
    names = tuple(inner[label].names)
    return names, gather(boxes, {place: place for place in range(len(names))}, len(chosen), name_of)


def _classes(feature, mask: Callable, mask_of: Callable, paths) -> tuple[tuple[str, ...], Callable]:
    """The names of the classes in masks, and `mask` with their places in place of their values."""
    if getattr(feature, "num_classes", None):
        return tuple(feature.names), mask
    contents = tf.data.TFRecordDataset(paths).map(mask_of).as_numpy_iterator()
    values = classes_in(((paths[0], bytes(content)) for content in contents), "\n".join(map(trace, paths)))
    names = tuple(map(str, values))
    if values == [*range(len(values))]:
        return names, mask

    def places(place):
        found = decode_mask(mask(place))
        places = tf.reshape(tf.searchsorted(values, tf.reshape(found, [-1])), tf.shape(found))
        return tf.where(found == IGNORED, IGNORED, places)

    return names, places


def _first_words(error) -> str:
    return shown(" ".join(str(error).split())[:300])
