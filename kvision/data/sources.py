"""Where images come from: embedded digits, class folders, TensorFlow Datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from kvision.data.images import decode
from kvision.labels import ASSETS
from kvision.spec import did_you_mean

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Source:
    """One split of a dataset.

    Attributes:
        class_names: in the order of the labels.
        size: number of images.
        element: from an index tensor below `size` to an image `(height, width, channels)` and its label.
        name_of: from an index to a name for messages.
        stream: where the images cannot be had by index: a finite dataset of images and labels.
    """

    class_names: tuple[str, ...]
    size: int
    element: Callable | None = None
    name_of: Callable[[int], str] = str
    stream: tf.data.Dataset | None = None


def digits(_, split, channels, val_fraction) -> Source:
    """1,797 handwritten digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits").

    Every fifth image is held out, whatever `val_fraction`.
    """
    with np.load(ASSETS / "digits.npz") as file:
        images, labels = file["images"], file["labels"]
    held_out = np.arange(len(images)) % 5 == 0
    chosen = held_out if split == "val" else ~held_out
    images = tf.constant(np.repeat(images[chosen][..., None] * (255 / 16), channels, axis=-1), tf.float32)
    labels = tf.constant(labels[chosen], tf.int64)

    def element(index):
        return images[index], labels[index]

    return Source(tuple("0123456789"), len(images), element)


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
        raise ValueError(
            f"{str(root / split)!r} has classes that 'train' lacks: {', '.join(sorted(unknown))}."
        )
    files, labels = [], []
    for label, name in enumerate(classes):
        here = _files(root / split / name) if apart else _split(_files(root / name), split, val_fraction)
        files += here
        labels += [label] * len(here)
    if not files:
        raise ValueError(f"{path!r} has no files for the split {split!r}.")
    all_files, all_labels = tf.constant(files), tf.constant(labels, tf.int64)

    def element(index):
        return decode(tf.io.read_file(all_files[index]), channels), all_labels[index]

    return Source(tuple(classes), len(files), element, files.__getitem__)


def _class_folders(root) -> list[str]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not names:
        raise ValueError(f"{str(root)!r} has no folders: one for each class was expected.")
    return names


def _files(folder) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(str(entry) for entry in folder.iterdir() if entry.is_file() and entry.name[0] != ".")


def _split(files, split, val_fraction) -> list[str]:
    order = np.random.RandomState(0).permutation(len(files))
    held_out = set(order[: round(len(files) * val_fraction)].tolist())
    return [file for i, file in enumerate(files) if (i in held_out) == (split == "val")]


def tfds(name, split, channels, val_fraction) -> Source:
    """A dataset of TensorFlow Datasets with the features "image" and "label"."""
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(name)
    except tensorflow_datasets.core.DatasetNotFoundError:
        known = tensorflow_datasets.list_builders()
        raise ValueError(f"TensorFlow Datasets has no {name!r}. {did_you_mean(name, known)}") from None
    features = builder.info.features or {}
    if "image" not in features or "label" not in features:
        raise ValueError(
            f"'tfds:{name}' is no image classification: it has {', '.join(features) or 'no features'}."
        )
    builder.download_and_prepare()
    held_out = next((s for s in ("validation", "test") if s in builder.info.splits), None)
    cut = f"{round(100 * (1 - val_fraction))}%"
    part = {
        "train": "train" if held_out else f"train[:{cut}]",
        "val": held_out or f"train[{cut}:]",
    }[split]

    def adapt(example):
        image, label = example["image"], example["label"]
        if channels == 1 and image.shape[-1] == 3:
            return tf.image.rgb_to_grayscale(image), label
        if channels == 3 and image.shape[-1] == 1:
            return tf.image.grayscale_to_rgb(image), label
        return image, label

    stream = builder.as_dataset(split=part).map(adapt)
    names = tuple(features["label"].names)
    return Source(names, builder.info.splits[part].num_examples, stream=stream)


KINDS = {"digits": digits, "folder": folder, "tfds": tfds}


def open_source(data, split, channels, val_fraction) -> Source:
    """The source that `digits`, `folder:PATH` or `tfds:NAME` means."""
    kind, _, rest = data.partition(":")
    if kind not in KINDS or (kind == "digits") == bool(rest):
        raise ValueError(
            f"Unknown dataset {data!r}: 'digits', 'folder:PATH' or 'tfds:NAME' was expected. "
            f"{did_you_mean(kind, KINDS)}"
        )
    if split not in SPLITS:
        raise ValueError(f"`split` must be 'train' or 'val'; got {split!r}.")
    if channels not in (1, 3):
        raise ValueError(f"Images have 1 or 3 channels; the network asks for {channels}.")
    return KINDS[kind](rest, split, channels, val_fraction)
