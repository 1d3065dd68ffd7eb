"""The identity of a dataset, so that two that meet are compared by more than a name or a count."""

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kvision.names import counted, quoted

CHEAP = 2**26  # bytes of all files together, up to which their contents are read
MOST_NAMES = 5  # classes in a message


@dataclass(frozen=True, eq=False)
class Files:
    """The files that the images of a split are read from.

    Attributes:
        paths: of the files.
        root: the folder that their names are relative to, so that a copy elsewhere has the same ones.
        numbers: int64 `(images,)`, the place of each image's file in `paths`.
        offsets: int64 `(images,)`, the first byte of each image in its file; None where a file is an image.
    """

    paths: Sequence[str]
    root: str
    numbers: np.ndarray
    offsets: np.ndarray | None = None

    @functools.cached_property
    def stamps(self) -> list[tuple[int, int]]:
        """The size in bytes and modification time in ns of each file; -1 and 0 where there is none."""
        return [_stamp(path) for path in self.paths]

    def key(self, index: int) -> str:
        """A text that changes when an image is replaced: its file's `trace`, and its first byte there."""
        offset = 0 if self.offsets is None else int(self.offsets[index])
        return f"{self.traces[int(self.numbers[index])]} {offset}"

    @functools.cached_property
    def traces(self) -> list[str]:
        """The `trace` of each file."""
        return [trace(path) for path in self.paths]


@dataclass(frozen=True)
class Identity:
    """The identity of a split of a dataset.

    Attributes:
        class_names: in the order of the labels.
        counts: number of images of each class; that of all images alone where these have no single class.
        files: SHA-256 of the names, sizes, labels and boxes of all images in order, of the names and sizes of
            the files of their targets, and of the contents of all files where these are small enough to be
            read.
        times: SHA-256 of the files' modification times, which a copy changes; "" where `files` covers the
            contents.
        divided: whether the split is a share of images that have no splits of their own.
    """

    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    files: str
    times: str
    divided: bool = False

    def to_json(self) -> dict:
        """The same as plain lists and strings."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping) -> "Identity":
        """The inverse of `to_json`."""
        names, counts = tuple(map(str, fields["class_names"])), tuple(map(int, fields["counts"]))
        divided = bool(fields.get("divided", False))  # which earlier versions do not say
        return cls(names, counts, str(fields["files"]), str(fields["times"]), divided)

    def changes(self, now: "Identity") -> list[str]:
        """The differences that make `now` another dataset than this one, in a few words each.

        Times alone do not: see `touched`.
        """
        if self.class_names != now.class_names:
            return _changed_classes(self.class_names, now.class_names)
        if self.labeled != now.labeled:
            return ["images have a single class" if now.labeled else "images have no single class"]
        whose = [f"class {quoted(name)} has" for name in self.class_names] if self.labeled else ["there are"]
        counts = [
            f"{subject} {counted(new, 'image')} instead of {old}"
            for subject, old, new in zip(whose, self.counts, now.counts, strict=True)
            if old != new
        ]
        if counts:
            return _shortened(counts)
        what = "images have other names, sizes, contents, labels or boxes, or another order"
        return [what] if self.files != now.files else []

    @property
    def labeled(self) -> bool:
        """Whether `counts` are of classes."""
        return len(self.counts) == len(self.class_names)

    def touched(self, now: "Identity") -> bool:
        """Whether files were written since, although nothing else that is known of them changed."""
        return not self.changes(now) and self.times != now.times


def identify(
    class_names: Sequence[str],
    labels: np.ndarray | None,
    *files: Files | None,
    size: int = 0,
    others: bytes = b"",
) -> Identity:
    """The identity of a split.

    Args:
        class_names, labels: of a `Source`.
        *files: those that images and targets are read from. Without files, the labels alone count.
        size: number of images of a split without labels.
        others: what changes when an object in an image, a caption or a series does.
    """
    if labels is None:
        counts, digest = (size,), hashlib.sha256(str(size).encode())
    elif labels.ndim == 1:
        counts = tuple(np.bincount(labels, minlength=len(class_names)).tolist())
        digest = hashlib.sha256(labels.astype("<i8").tobytes())
    else:
        counts, digest = tuple(labels.sum(0).tolist()), hashlib.sha256(labels.tobytes())
    digest.update(others)
    times = hashlib.sha256()
    present = [part for part in files if part is not None]
    for part in present:
        for path, (bytes_, time) in zip(part.paths, part.stamps, strict=True):
            name = os.path.relpath(path, part.root)
            digest.update(f"{name}\0{bytes_}\n".encode(errors="surrogateescape"))
            times.update(f"{time}\n".encode())
        for places in (part.numbers, part.offsets):
            digest.update(b"" if places is None else places.astype("<i8").tobytes())
    cheap = sum(bytes_ for part in present for bytes_, _ in part.stamps) <= CHEAP
    for part in present if cheap else []:
        for path, (bytes_, _) in zip(part.paths, part.stamps, strict=True):
            if bytes_ >= 0:
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return Identity(tuple(class_names), counts, digest.hexdigest(), "" if cheap else times.hexdigest())


def trace(path: str) -> str:
    """A text that changes when a file is written or replaced, even by one of equal size and time."""
    try:
        stat = os.stat(path)
    except OSError:
        return f"{os.path.abspath(path)} is absent"
    times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"  # the second is that of a copy or renaming
    return f"{os.path.abspath(path)} {stat.st_size} {times} {stat.st_ino}"


def _stamp(path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, 0)


def _changed_classes(before, now) -> list[str]:
    gone, new = [sorted({*one} - {*other}) for one, other in ((before, now), (now, before))]
    changes = [f"class {quoted(name)} is gone" for name in gone]
    changes += [f"class {quoted(name)} is new" for name in new]
    return _shortened(changes) or ["the classes have another order"]


def _shortened(changes: list[str]) -> list[str]:
    more = len(changes) - MOST_NAMES
    return changes if more <= 0 else [*changes[:MOST_NAMES], f"and {more} more"]
