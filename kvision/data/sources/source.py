"""The opened form of all kinds of datasets, and what they share."""

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from kvision.data.captions import Captions
from kvision.data.clips import Choose
from kvision.data.identity import Files, Identity, identify
from kvision.data.objects import Objects
from kvision.data.series import Series
from kvision.errors import UserError
from kvision.names import listed, shown
from kvision.vocabulary import Vocabulary

SPLITS = ("train", "val", "test")
UNLABELED = "unlabeled"  # the only class of images whose labels are not read
NAMES_OF_SPLITS = {  # as datasets write them, in small letters
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> str | None:
    """The split that a folder is called by, also with a year, as in COCO's "train2017"; None for none."""
    return NAMES_OF_SPLITS.get(re.sub(r"(19|20)\d\d$", "", name.casefold()))


@dataclass(frozen=True)
class Source:
    """One split of a dataset, of which any image can be had without those before it.

    Attributes:
        class_names: in the order of the labels, or of the classes in masks; or the words of captions, see
            `kvision.vocabulary`, or the features of series whose next values are predicted.
        labels: int64 `(images,)`, each a place in `class_names`; of images with several classes uint8
            `(images, classes)`, 1 for those that an image has; None where an image has a mask, boxes or
            captions, and of series without labels.
        image: from an index tensor to an encoded image, or to pixels `(height, width, channels)`; None of
            clips and series.
        name_of: from an index to a name for messages, which a terminal can print.
        files: what images are read from, see `identity.Files`; None for what comes with the package.
        encoded: whether images are encoded, or pixels.
        targets: further fields by name, each from an index tensor to what it is read as: a "mask" to an
            encoded mask, or to integers `(height, width)`.
        target_files: what targets are read from, by name.
        objects: those in the images; None where boxes are not the target.
        clip: from an index, a `clips.Choose`, and whether frames are turned as their EXIF orientation says,
            to the chosen frames of a clip, see `clips.read_frames`; None of single images.
        captions: of the images; None where they are not the target.
        series: of which windows or wholes are the examples; None of images.
        count: number of images of a split without labels, or of the values in series to be predicted.
        places: the place in `class_names` of each class that masks hold; None for their own order.
        divided: whether the split is a share of images that have no splits of their own, see `part`.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray | None
    image: Callable | None
    name_of: Callable[[int], str] = str
    files: Files | None = None
    encoded: bool = True
    targets: Mapping[str, Callable] = field(default_factory=dict)
    target_files: Mapping[str, Files] = field(default_factory=dict)
    objects: Objects | None = None
    clip: Callable[[int, Choose, bool], Iterator[np.ndarray]] | None = None
    captions: Captions | None = None
    series: Series | None = None
    count: int = 0
    places: tuple[int, ...] | None = None
    divided: bool = False

    @property
    def size(self) -> int:
        """Number of images."""
        return self.count if self.labels is None else len(self.labels)

    @property
    def single_labels(self) -> np.ndarray | None:
        """The labels of images with one class each; None of others."""
        return self.labels if self.labels is not None and self.labels.ndim == 1 else None

    @property
    def fields(self) -> dict[str, Callable]:
        """What is read of an image: itself, where there is one, and its targets."""
        return ({"image": self.image} if self.image else {}) | {**self.targets}

    @property
    def mean(self) -> np.ndarray | None:
        """float32 `(features,)`, the mean of the training's values; None of images."""
        return self.series and self.series.mean

    @property
    def std(self) -> np.ndarray | None:
        """float32 `(features,)`, their standard deviation, 1 in place of 0; None of images."""
        return self.series and self.series.std

    def example(self, index) -> dict:
        """The image at an index tensor, its label or labels, and its targets, as they are read."""
        example = {name: read(index) for name, read in self.fields.items()}
        if self.labels is not None:
            with tf.init_scope():  # so that a graph refers to them and holds no copy
                labels = tf.constant(self.labels)
            example["labels" if self.single_labels is None else "label"] = labels[index]
        return example

    def with_classes(self, class_names: Sequence[str], places: Sequence[int]) -> "Source":
        """The same images with the classes of a network, or with its vocabulary or features.

        Args:
            class_names: the network's.
            places: of each class or feature of this source, its place among the network's; words need none.

        Raises:
            UserError: the network has features that the series lack; its class names are no vocabulary.
        """
        if self.captions:
            captions = replace(self.captions, vocabulary=Vocabulary(tuple(class_names)))
            return replace(self, class_names=tuple(class_names), captions=captions)
        if self.series and self.labels is None:
            series = self.series.with_columns(class_names, places)
            return replace(self, class_names=series.columns, series=series)
        moved = np.array(places, np.int64)
        if (labels := self.single_labels) is not None:
            labels = moved[labels]
        elif (labels := self.labels) is not None:
            labels = np.zeros((len(labels), len(class_names)), labels.dtype)
            labels[:, moved] = self.labels
        objects = self.objects and self.objects.with_classes(places)
        names, places = tuple(class_names), tuple(places)
        return replace(self, class_names=names, labels=labels, objects=objects, places=places)

    def name(self, index: int, field: str) -> str:
        """A name for messages about the image, or about a target that has files of its own."""
        if field not in self.target_files:
            return self.name_of(index)
        files = self.target_files[field]
        return shown(files.paths[int(files.numbers[index])])

    def absent(self, field: str) -> list[int]:
        """The places of the files that are not there, of those of the images or of a target."""
        files = self.target_files.get(field, self.files)
        return [place for place, (size, _) in enumerate(files.stamps if files else ()) if size < 0]

    @functools.cached_property
    def identity(self) -> Identity:
        """The identity of the split, to compare it with another."""
        files = dict.fromkeys([self.files, *self.target_files.values()])
        others = b"".join(part.digest() for part in (self.objects, self.captions, self.series) if part)
        identity = identify(
            self.class_names, self.labels, *filter(None, files), size=self.size, others=others
        )
        return replace(identity, divided=self.divided)


@dataclass(frozen=True)
class Options:
    """Options for opening a dataset: the arguments of `open_source` with these names.

    Attributes:
        target: a key of `TARGETS`, but "label" in place of "labels".
        several: whether an image may have several labels, where the dataset can say so.
    """

    channels: int
    val_fraction: float
    allow_outside: bool
    labeled: bool = True
    check_classes: Callable[[Sequence[str]], object] | None = None
    target: str = "label"
    several: bool = False
    min_word_count: int = 1
    max_words: int | None = None


def of_files(
    root: str,
    class_names: Sequence[str],
    paths: list[str],
    labels: list[int] | np.ndarray | None = None,
    targets: Mapping[str, list[str]] | None = None,
    divided: bool = False,
) -> Source:
    """The source of images that are a file each, in the order of `paths`; so are those of their targets."""

    def reader(paths):
        contents = tf.constant([os.fsencode(path) for path in paths], tf.string)
        return lambda index: tf.io.read_file(contents[index])

    numbers, targets = np.arange(len(paths)), targets or {}
    return Source(
        tuple(class_names),
        np.array(labels, np.int64) if isinstance(labels, list) else labels,
        reader(paths),
        lambda index: shown(paths[index]),
        Files(paths, root, numbers),
        targets={name: reader(files) for name, files in targets.items()},
        target_files={name: Files(files, root, numbers) for name, files in targets.items()},
        count=len(paths),
        divided=divided,
    )


def part(items: Sequence, split: str, val_fraction: float) -> list:
    """The items of a split: "val" is a random share, the same at each call, "train" the rest, "all" all."""
    order = np.random.RandomState(0).permutation(len(items))
    held_out = set(order[: round(len(items) * val_fraction)].tolist())
    return [item for i, item in enumerate(items) if split == "all" or (i in held_out) == (split == "val")]


def parts(split: str, available: Iterable[str], where: str) -> list[str]:
    """The parts of a dataset with splits of its own that make `split`; "test" is "val" where that lacks."""
    there = [name for name in SPLITS if name in available]
    if split == "all":
        return there
    if split == "val" and "val" not in there and "test" in there:
        return ["test"]
    if split not in there:
        raise UserError(f"{where} has no split {split!r}. Valid splits: {listed([*there, 'all'])}.")
    return [split]


def check_divided(split: str, where: str) -> None:
    """A UserError for "test" of a dataset that has no splits of its own."""
    if split == "test":
        raise UserError(f"{where} has no split 'test' of its own. Valid splits: 'train', 'val', 'all'.")
