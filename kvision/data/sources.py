"""Where images come from: embedded digits, class folders, CSV lists, TFRecords, TensorFlow Datasets."""

import csv
import functools
import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow as tf

from kvision.data import records
from kvision.data.identity import Files, Identity, identify
from kvision.data.images import decode
from kvision.errors import UserError
from kvision.labels import ASSETS
from kvision.spec import did_you_mean

SPLITS = ("train", "val")
FORMS = "digits, folder:PATH, csv:PATH, tfrecord:GLOB or tfds:NAME"


@dataclass(frozen=True)
class Source:
    """One split of a dataset, of which any image can be had without those before it.

    Attributes:
        class_names: in the order of the labels.
        labels: int64 `(images,)`, each a place in `class_names`.
        image: from an index tensor to an encoded image, or pixels `(height, width, channels)`.
        name_of: from an index to a name for messages.
        files: what is read, see `identity.Files`; None for what comes with the package.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    image: Callable
    name_of: Callable[[int], str] = str
    files: Files | None = None

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.labels)

    @functools.cached_property
    def identity(self) -> Identity:
        """What the split is, to compare it with another."""
        return identify(self.class_names, self.labels, self.files)


def digits(_, split, channels, val_fraction) -> Source:
    """1,797 handwritten digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits").

    Every fifth image is held out, whatever `val_fraction`.
    """
    with np.load(ASSETS / "digits.npz") as file:
        images, labels = file["images"], file["labels"]
    held_out = np.arange(len(images)) % 5 == 0
    chosen = held_out if split == "val" else ~held_out
    images = tf.constant(np.repeat(images[chosen][..., None] * (255 / 16), channels, axis=-1), tf.float32)
    return Source(tuple("0123456789"), labels[chosen].astype(np.int64), lambda index: images[index])


def folder(path, split, channels, val_fraction) -> Source:
    """Class folders, in `PATH/train` and `PATH/val` or together in `PATH`, then split per class."""
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {path!r}.")
    apart = (root / "train").is_dir()
    if apart and not (root / split).is_dir():
        raise FileNotFoundError(f"{path!r} has a folder 'train' but none named {split!r}.")
    classes = _class_folders(root / "train" if apart else root)
    if apart and (unknown := set(_class_folders(root / split)) - set(classes)):
        raise UserError(
            f"{str(root / split)!r} has classes that 'train' lacks: {', '.join(sorted(unknown))}."
        )
    files, labels = [], []
    for label, name in enumerate(classes):
        here = _files(root / split / name) if apart else _part(_files(root / name), split, val_fraction)
        files += here
        labels += [label] * len(here)
    return _of_files(path, str(root), split, classes, files, labels)


def csv_list(path, split, channels, val_fraction) -> Source:
    """A CSV file with the columns `path` and `label`, and `split` ("train" or "val") where it is given.

    Paths are relative to the file's folder and stay below it. Labels are names of classes.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    columns = reader.fieldnames or []
    if not {"path", "label"} <= set(columns):
        raise UserError(f"{path!r} must have the columns 'path' and 'label'; its first line is {columns}.")
    for line, row in enumerate(rows, start=2):
        parts = PurePosixPath(row["path"] or "/").parts
        if ".." in parts or parts[0] == "/" or not row["label"]:
            raise UserError(
                f"{path!r}, row {line}: a path below the file's folder and a label were expected; "
                f"got {row['path']!r}, {row['label']!r}."
            )
        if "split" in columns and row["split"] not in SPLITS:
            raise UserError(f"{path!r}, row {line}: `split` must be train or val; got {row['split']!r}.")
    classes = sorted({row["label"] for row in rows})
    if "split" in columns:
        rows = [row for row in rows if row["split"] == split]
    else:
        by_class = [[row for row in rows if row["label"] == name] for name in classes]
        rows = [row for group in by_class for row in _part(group, split, val_fraction)]
    root = Path(path).parent
    files = [str(root / row["path"]) for row in rows]
    return _of_files(path, str(root), split, classes, files, [classes.index(row["label"]) for row in rows])


def tfrecord(pattern, split, channels, val_fraction) -> Source:
    """TFRecord files with ImageNet's usual keys: `image/encoded`, `image/class/label`, `image/class/text`.

    Files whose names begin with "train" and "val" are the splits; where there are none, the records are
    divided. Labels may begin at any number, as ImageNet's do at 1.
    """
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise FileNotFoundError(f"No file matches {pattern!r}.")
    found = records.read_index(paths, "ImageNet's keys", _imagenet_label)
    values, names = np.unique(found.labels, return_index=True)
    classes = [found.texts[first] or str(value) for value, first in zip(values, names, strict=True)]
    if len(set(classes)) < len(classes):
        classes = [str(value) for value in values]
    of_file = np.array([next((s for s in SPLITS if Path(path).name.startswith(s)), "") for path in paths])
    if "train" in of_file:
        chosen = np.flatnonzero(of_file[found.files] == split)
    else:
        chosen = np.array(_part(range(len(found.labels)), split, val_fraction))
    if not len(chosen):
        raise UserError(f"{pattern!r} has no records for the split {split!r}.")
    labels = np.searchsorted(values, found.labels[chosen])
    read = records.reader(paths, found, chosen)

    def image(index):
        keys = {"image/encoded": tf.io.FixedLenFeature((), tf.string)}
        return tf.io.parse_single_example(read(index), keys)["image/encoded"]

    def name_of(index):
        return found.name(paths, chosen[index])

    return Source(tuple(classes), labels, image, name_of, found.files_of(paths, chosen))


def tfds(name, split, channels, val_fraction) -> Source:
    """A dataset of TensorFlow Datasets with the features "image" and "label", prepared as TFRecords."""
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(name)
    except tensorflow_datasets.core.DatasetNotFoundError:
        known = tensorflow_datasets.list_builders()
        raise UserError(f"TensorFlow Datasets has no {name!r}. {did_you_mean(name, known)}") from None
    features = builder.info.features or {}
    if "image" not in features or "label" not in features:
        raise UserError(
            f"'tfds:{name}' is no image classification: it has {', '.join(features) or 'no features'}."
        )
    builder.download_and_prepare()
    if builder.info.file_format != tensorflow_datasets.core.FileFormat.TFRECORD:
        raise UserError(f"'tfds:{name}' is prepared as {builder.info.file_format}; tfrecord was expected.")
    held_out = next((s for s in ("validation", "test") if s in builder.info.splits), None)
    part = held_out if held_out and split == "val" else "train"
    paths = [str(path) for path in builder.info.splits[part].filepaths]
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}

    def example(record):
        return features.deserialize_example(record, decoders=skip)

    found = records.read_index(paths, f"tfds:{name}", lambda record: (example(record)["label"], ""))
    everything = range(len(found.offsets))
    chosen = np.array(everything if held_out else _part(everything, split, val_fraction))
    read = records.reader(paths, found, chosen)

    def image(index):
        return example(read(index))["image"]

    def name_of(index):
        return found.name(paths, chosen[index])

    names = tuple(features["label"].names)
    return Source(names, found.labels[chosen], image, name_of, found.files_of(paths, chosen))


def _imagenet_label(record):
    keys = {
        "image/class/label": tf.io.FixedLenFeature((), tf.int64),
        "image/class/text": tf.io.FixedLenFeature((), tf.string, ""),
    }
    example = tf.io.parse_single_example(record, keys)
    return example["image/class/label"], example["image/class/text"]


def _of_files(path, root, split, classes, files, labels) -> Source:
    if not files:
        raise UserError(f"{path!r} has no files for the split {split!r}.")
    paths = tf.constant(files)

    def image(index):
        return tf.io.read_file(paths[index])

    whole = Files(files, root, np.arange(len(files)))
    return Source(tuple(classes), np.array(labels, np.int64), image, files.__getitem__, whole)


def _class_folders(root) -> list[str]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not names:
        raise UserError(f"{str(root)!r} has no folders: one for each class was expected.")
    return names


def _files(folder) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(str(entry) for entry in folder.iterdir() if entry.is_file() and entry.name[0] != ".")


def _part(items: Sequence, split, val_fraction) -> list:
    order = np.random.RandomState(0).permutation(len(items))
    held_out = set(order[: round(len(items) * val_fraction)].tolist())
    return [item for i, item in enumerate(items) if (i in held_out) == (split == "val")]


KINDS = {"digits": digits, "folder": folder, "csv": csv_list, "tfrecord": tfrecord, "tfds": tfds}


def open_source(data: str, split: str, channels: int = 3, val_fraction: float = 0.2) -> Source:
    """The split of the dataset that one of `FORMS` means, of which at least one image can be read.

    Arguments and errors are those of `kvision.data.load`.
    """
    kind, _, rest = data.partition(":")
    if kind not in KINDS or (kind == "digits") == bool(rest):
        raise UserError(f"Unknown dataset {data!r}: {FORMS} was expected. {did_you_mean(kind, KINDS)}")
    if split not in SPLITS:
        raise UserError(f"`split` must be 'train' or 'val'; got {split!r}.")
    if channels not in (1, 3):
        raise UserError(f"Images have 1 or 3 channels; the network asks for {channels}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"`val_fraction` must be between 0 and 1; got {val_fraction}.")
    source = KINDS[kind](rest, split, channels, val_fraction)
    if not any(_readable(source, index, channels) for index in range(source.size)):  # stops at the first
        raise UserError(f"None of the {source.size} files is an image.")
    return source


def _readable(source, index, channels) -> bool:
    try:
        image = source.image(tf.constant(index, tf.int64))
        if image.dtype == tf.string:
            decode(image, channels)
    except tf.errors.OpError:
        return False
    return True
