"""TFRecord files."""

import glob
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from kvision.data import records
from kvision.data.sources.source import Options, Source, check_divided, part, parts, split_of
from kvision.errors import UserError
from kvision.names import counted, listed, say_once

KEYS = {
    "image/encoded": tf.io.FixedLenFeature((), tf.string),
    "image/class/label": tf.io.FixedLenFeature((), tf.int64),
    "image/class/text": tf.io.FixedLenFeature((), tf.string, ""),
}


def tfrecord(pattern: str, split: str, options: Options) -> Source:
    """TFRecord files with ImageNet's usual keys: `image/encoded`, `image/class/label`, `image/class/text`.

    Files whose names begin with "train", "val" and "test", or have these behind another character than a
    letter, are the splits; or else those in folders that are called so. Others are "train" where no file is
    called that; where no file names a split, the records are divided. Labels may begin at any number, as
    ImageNet's do at 1.
    """
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise FileNotFoundError(f"No file matches {pattern!r}.")
    index = records.read_index(paths, "ImageNet's keys", _label_of, KEYS)
    classes = [text or str(value) for value, text in zip(index.values, index.texts.tolist(), strict=True)]
    if len(set(classes)) < len(classes):
        classes = [str(value) for value in index.values]
    of_file = [_split_of(path) for path in paths]
    if any(of_file) and "train" not in of_file:
        of_file = [split or "train" for split in of_file]
    of_file, named = np.array(of_file), {*of_file} - {""}
    divided = not named
    if divided:
        check_divided(split, repr(pattern))
        chosen = np.array(part(range(len(index.labels)), split, options.val_fraction), np.int64)
    else:
        chosen = np.flatnonzero(np.isin(of_file[index.files], parts(split, named, repr(pattern))))
        if unnamed := [path for path in paths if not _split_of(path)]:
            files = counted(len(unnamed), "file")
            say_once(f"Left out of {pattern!r}: {files} of no split ({listed(unnamed, 3)}).")
    if not len(chosen):
        raise UserError(f"{pattern!r} has no records for the split {split!r}.")
    labels = np.searchsorted(index.values, index.labels[chosen])
    read = records.reader(paths, index, chosen)

    def image(place):
        encoded = {"image/encoded": KEYS["image/encoded"]}
        return tf.io.parse_single_example(read(place), encoded)["image/encoded"]

    def name_of(place):
        return index.name(paths, chosen[place])

    files = index.files_of(paths, chosen)
    return Source(tuple(classes), labels, image, name_of, files, divided=divided)


def _label_of(record):
    example = tf.io.parse_single_example(record, KEYS)
    return example["image/class/label"], example["image/class/text"]


def _split_of(path) -> str:
    """The split that a file's name says, or else its folder's; "" for none."""
    found = re.search(r"(?:^|[^a-z])(train|val|test)", Path(path).name.casefold())
    return found[1] if found else split_of(Path(path).parent.name) or ""
