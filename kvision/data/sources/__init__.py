"""Sources of images: a file for each kind of dataset, from an index to an image and its targets."""

import dataclasses
import glob
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from kvision.choices import (
    ALL_SPLITS,
    BOX_FORMS,
    CAPTION_FORMS,
    FORMS,
    MASK_FORMS,
    SEQUENCE_FORMS,
    SERIES_FORMS,
    VIDEO_FORMS,
)
from kvision.data.sources.captions import captions
from kvision.data.sources.check import check_images
from kvision.data.sources.coco import PAIR, coco
from kvision.data.sources.csv_boxes import csv_boxes
from kvision.data.sources.csv_list import csv_list
from kvision.data.sources.digits import digits
from kvision.data.sources.folder import folder
from kvision.data.sources.masks import masks
from kvision.data.sources.series import series
from kvision.data.sources.shapes import shapes
from kvision.data.sources.source import UNLABELED, Options, Source
from kvision.data.sources.tfds import tfds
from kvision.data.sources.tfrecord import tfrecord
from kvision.data.sources.video import video
from kvision.data.sources.voc import voc
from kvision.data.sources.yolo import yolo
from kvision.errors import NoLabels, UserError
from kvision.names import check_class_names, counted
from kvision.spec import nearest

KINDS = {
    "digits": digits,
    "shapes": shapes,
    "folder": folder,
    "csv": csv_list,
    "masks": masks,
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "video": video,
    "captions": captions,
    "series": series,
    "tfrecord": tfrecord,
    "tfds": tfds,
}
BOX_KINDS = KINDS | {"csv": csv_boxes}
TARGETS = {  # and the datasets that give them
    "label": FORMS,
    "labels": FORMS,
    "mask": MASK_FORMS,
    "boxes": BOX_FORMS,
    "clip": VIDEO_FORMS,
    "tokens": CAPTION_FORMS,
    "next": SERIES_FORMS,
    "sequence": SEQUENCE_FORMS,
}
PLURALS = {
    "label": "labels",
    "labels": "labels",
    "mask": "masks",
    "boxes": "boxes",
    "clip": "clips",
    "tokens": "captions",
    "next": "series",
    "sequence": "sequences with labels",
}
LENGTHS = {"clip": "frames", "tokens": "tokens", "next": "rows", "sequence": "rows"}  # targets, and what of
IMAGELESS = ("clip", "next", "sequence")  # targets without single images


def open_source(
    data: str,
    split: str,
    channels: int = 3,
    val_fraction: float = 0.2,
    allow_outside: bool = False,
    labeled: bool = True,
    check_classes: Callable[[Sequence[str]], object] | None = None,
    target: str = "label",
    min_word_count: int = 1,
    max_words: int | None = None,
) -> Source:
    """The split of the dataset that one of `TARGETS` means, of which an image of each class can be read.

    Args:
        data, split, channels, val_fraction, allow_outside: see `kvision.data.load`.
        labeled: whether the images' targets are read; else all are of the class "unlabeled", and those of a
            folder may lie anywhere below it.
        check_classes: is given the names of class folders before files are looked for, and may raise.
        target: what images come with, a key of `TARGETS`, or what comes in their place.
        min_word_count, max_words: see `kvision.data.load`.

    Raises:
        NoLabels: a folder has images and no class folders, or the dataset has other targets.
        UserError, FileNotFoundError: see `kvision.data.load`.
    """
    if target not in TARGETS:
        raise UserError(f"`target` must be one of {', '.join(map(repr, TARGETS))}; got {target!r}.")
    kind, _, name = data.partition(":")
    forms, several = TARGETS[target], target == "labels"
    target = "label" if several else target
    if kind not in KINDS:
        near = f"Did you mean '{form}:{data}'?" if (form := _form_of(data, target)) else nearest(kind, KINDS)
        raise UserError(f"Unknown dataset {data!r}: {forms} was expected. {near}".rstrip())
    gives = [given for given, its_forms in TARGETS.items() if re.search(rf"(?<!\.)\b{kind}\b", its_forms)]
    if target not in gives:
        if labeled or target in IMAGELESS or gives[0] in IMAGELESS:
            given = PLURALS[gives[0]]
            raise NoLabels(f"{data!r} gives {given} and no {PLURALS[target]}: {forms} was expected.")
        target = gives[0]
    form = re.search(rf"\b{kind}:(\w+)[.\w]*", TARGETS[target])
    if not form and name:
        raise UserError(f"{kind!r} takes no path; got {data!r}. Datasets are {forms}.")
    if form and not name:
        raise UserError(f"The {form[1].lower()} is missing in {data!r}: {form[0]} was expected.")
    if split not in ALL_SPLITS:
        raise UserError(f"`split` must be one of {', '.join(map(repr, ALL_SPLITS))}; got {split!r}.")
    if channels not in (1, 3):
        raise UserError(f"Images have 1 or 3 channels; the network asks for {channels}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"`val_fraction` must be between 0 and 1; got {val_fraction}.")
    if min_word_count < 1 or (max_words is not None and max_words < 1):
        raise UserError(
            f"`min_word_count` and `max_words` must be 1 or more; got {min_word_count} and {max_words}."
        )
    if "\0" in name:
        raise UserError(f"Unknown dataset {data!r}: a name without null characters was expected.")
    if kind != "tfds":
        name = os.path.expanduser(name)
    options = Options(
        channels,
        val_fraction,
        allow_outside,
        labeled,
        check_classes,
        target,
        several,
        min_word_count,
        max_words,
    )
    source = (BOX_KINDS if target == "boxes" else KINDS)[kind](name, split, options)
    if not labeled and target != "next":
        labels = np.zeros(source.size, np.int64)
        source = dataclasses.replace(
            source,
            class_names=(UNLABELED,),
            labels=labels,
            targets={},
            target_files={},
            objects=None,
            captions=None,
        )
    check_class_names(source.class_names, repr(data))
    if source.single_labels is not None:
        _check_labels(source.single_labels, source.class_names, f"{data!r}, split {split!r}")
    if source.files:
        # the list of classes of TensorFlow Datasets is a definition, which may hold some without images
        check_images(
            source, channels, f"{data!r}, split {split!r}", complete=split == "train" and kind != "tfds"
        )
    return source


def absolute(data: str) -> str:
    """A dataset's name with an absolute path without links, so that two names of one dataset are equal."""
    kind, colon, path = data.partition(":")
    if not colon or kind == "tfds":
        return data
    pair = PAIR.fullmatch(path) if kind in ("coco", "captions") else None
    paths = pair.groups() if pair else [path]
    return f"{kind}:{','.join(os.path.realpath(os.path.expanduser(one)) for one in paths)}"


def _check_labels(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(outside):
        raise UserError(
            f"{where}: {counted(len(outside), 'image')} without the label of a class, the first "
            f"{labels[outside[0]]} instead of 0 to {len(class_names) - 1}."
        )


def _form_of(path: str, target: str) -> str:
    """The kind of dataset that a path means without saying so; "" for none."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return {"clip": "video", "tokens": "captions"}.get(target, "folder")
    of_csv = {"tokens": "captions", "next": "series", "sequence": "series"}.get(target, "csv")
    kinds = {".csv": of_csv, ".tfrecord": "tfrecord", ".yaml": "yolo", ".yml": "yolo"}
    kind = kinds.get(os.path.splitext(path)[1], "")
    return kind if os.path.isfile(path) or glob.has_magic(path) else ""
