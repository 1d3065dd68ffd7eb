"""TFRecord files read by index: where each record lies is found once, and none is read to skip it."""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kvision.data.cache import cache_folder

HEADER, FOOTER = 12, 4  # bytes around a record: its length and the lengths' checksum; its own checksum


@dataclass(frozen=True)
class Index:
    """Where records lie.

    Attributes:
        files, offsets, lengths: `(records,)`: the file's number, and first byte and bytes of the content.
        labels: `(records,)` of `image/class/label`; None of a mere scan.
        texts: of `image/class/text`, "" where a record has none; None of a mere scan.
    """

    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray | None = None
    texts: np.ndarray | None = None

    def name(self, paths, record) -> str:
        """A record's name for messages."""
        return f"{paths[self.files[record]]}, byte {self.offsets[record]}"


def scan(paths: list[str]) -> Index:
    """Finds the records of uncompressed TFRecord files by their lengths alone.

    Raises:
        ValueError: a file that is none, or that was cut off.
    """
    rows = []
    for number, path in enumerate(paths):
        size, offset = os.path.getsize(path), 0
        with open(path, "rb", buffering=0) as file:
            while offset < size:
                file.seek(offset)
                header = file.read(HEADER)
                length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else size
                if offset + HEADER + length + FOOTER > size:
                    raise ValueError(f"{path!r} is no whole, uncompressed TFRecord file: byte {offset}.")
                rows.append((number, offset + HEADER, length))
                offset += HEADER + length + FOOTER
    if not rows:
        raise ValueError(f"{paths[0]!r} has no records.")
    files, offsets, lengths = np.array(rows, np.int64).T
    return Index(files, offsets, lengths)


def read_index(paths: list[str]) -> Index:
    """`scan`, with labels and texts, which takes a pass over the files; kept in the user's cache folder.

    Raises:
        ValueError: a file that is none, was cut off, or lacks ImageNet's keys.
    """
    stamps = "\n".join(f"{os.path.abspath(p)} {os.stat(p).st_size} {os.stat(p).st_mtime_ns}" for p in paths)
    kept = cache_folder() / f"index-{hashlib.sha256(stamps.encode()).hexdigest()[:32]}.npz"
    if kept.is_file():
        with np.load(kept) as file:  # allow_pickle is off
            return Index(**file)
    found = scan(paths)
    keys = {
        "image/class/label": tf.io.FixedLenFeature((), tf.int64),
        "image/class/text": tf.io.FixedLenFeature((), tf.string, ""),
    }
    dataset = tf.data.TFRecordDataset(paths).batch(256).map(lambda batch: tf.io.parse_example(batch, keys))
    try:
        batches = list(dataset.prefetch(2).as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ValueError(
            f"{paths[0]!r} has no int64 'image/class/label', or is damaged: {error.message[:120]}"
        ) from None
    labels = np.concatenate([batch["image/class/label"] for batch in batches])
    texts = np.concatenate([batch["image/class/text"] for batch in batches])
    found = Index(
        found.files, found.offsets, found.lengths, labels, np.char.decode(texts.astype(bytes), "utf-8")
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_name(f".{os.getpid()}-{kept.name}")
    np.savez(beside, **vars(found))
    os.replace(beside, kept)
    return found


def reader(paths: list[str], index: Index, chosen: np.ndarray) -> Callable:
    """From a tensor, a place in `chosen`, to the content of that record."""

    def read(place):
        record = chosen[place]
        with open(paths[index.files[record]], "rb", buffering=0) as file:
            return os.pread(file.fileno(), int(index.lengths[record]), int(index.offsets[record]))

    return lambda place: tf.ensure_shape(tf.numpy_function(read, [place], tf.string, stateful=False), ())
