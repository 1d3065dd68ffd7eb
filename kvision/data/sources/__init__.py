"""Where images come from: embedded digits, class folders, CSV lists, TFRecords, TensorFlow Datasets."""

import dataclasses
import glob
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from kvision._choices import ALL_SPLITS, FORMS
from kvision.data.sources.check import check_images
from kvision.data.sources.csv_list import csv_list
from kvision.data.sources.digits import digits
from kvision.data.sources.folder import folder
from kvision.data.sources.source import UNLABELED, Options, Source
from kvision.data.sources.tfds import tfds
from kvision.data.sources.tfrecord import tfrecord
from kvision.errors import UserError
from kvision.names import check_class_names, counted
from kvision.spec import did_you_mean

KINDS = {"digits": digits, "folder": folder, "csv": csv_list, "tfrecord": tfrecord, "tfds": tfds}


def open_source(
    data: str,
    split: str,
    channels: int = 3,
    val_fraction: float = 0.2,
    allow_outside: bool = False,
    labeled: bool = True,
    check_classes: Callable[[Sequence[str]], object] | None = None,
) -> Source:
    """The split of the dataset that one of `FORMS` means, of which an image of each class can be read.

    Args:
        data, split, channels, val_fraction, allow_outside: see `kvision.data.load`.
        labeled: whether the images' classes are read; else all are of the class "unlabeled", and those of a
            folder may lie anywhere below it.
        check_classes: is given the names of class folders before files are looked for, and may raise.

    Raises:
        NoLabels: a folder has images and no class folders.
        UserError, FileNotFoundError: see `kvision.data.load`.
    """
    kind, _, name = data.partition(":")
    if kind == "digits" and name:
        raise UserError(f"'digits' takes no path; got {data!r}. Datasets are {FORMS}.")
    if kind in KINDS and kind != "digits" and not name:
        form = re.search(rf"{kind}:(\w+)", FORMS)
        raise UserError(f"The {form[1].lower()} is missing in {data!r}: {form[0]} was expected.")
    if kind not in KINDS:
        near = f"Did you mean '{form}:{data}'?" if (form := _form_of(data)) else did_you_mean(kind, KINDS)
        raise UserError(f"Unknown dataset {data!r}: {FORMS} was expected. {near}")
    if split not in ALL_SPLITS:
        raise UserError(f"`split` must be one of {', '.join(map(repr, ALL_SPLITS))}; got {split!r}.")
    if channels not in (1, 3):
        raise UserError(f"Images have 1 or 3 channels; the network asks for {channels}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"`val_fraction` must be between 0 and 1; got {val_fraction}.")
    if "\0" in name:
        raise UserError(f"Unknown dataset {data!r}: a name without null characters was expected.")
    if kind != "tfds":
        name = os.path.expanduser(name)
    source = KINDS[kind](name, split, Options(channels, val_fraction, allow_outside, labeled, check_classes))
    if not labeled:
        source = dataclasses.replace(source, class_names=(UNLABELED,), labels=np.zeros_like(source.labels))
    check_class_names(source.class_names, repr(data))
    outside = np.flatnonzero((source.labels < 0) | (source.labels >= len(source.class_names)))
    if len(outside):
        raise UserError(
            f"{data!r}, split {split!r}: {counted(len(outside), 'image')} without the label of a class, the "
            f"first {source.labels[outside[0]]} instead of 0 to {len(source.class_names) - 1}."
        )
    if source.files:
        # the list of classes of TensorFlow Datasets is a definition, which may hold some without images
        check_images(
            source, channels, f"{data!r}, split {split!r}", complete=split == "train" and kind != "tfds"
        )
    return source


def _form_of(path: str) -> str:
    """The kind of dataset that a path means without saying so; "" for none."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return "folder"
    kind = {".csv": "csv", ".tfrecord": "tfrecord"}.get(os.path.splitext(path)[1], "")
    return kind if os.path.isfile(path) or glob.has_magic(path) else ""
