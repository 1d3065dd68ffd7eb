"""TFRecord files read by index: where each record lies is found once, and none is read to skip it."""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kvision.data.cache import cache_folder
from kvision.data.identity import Files
from kvision.errors import UserError

HEADER, FOOTER = 12, 4  # bytes around a record: its length and the lengths' checksum; its own checksum


@dataclass(frozen=True)
class Index:
    """Where records lie.

    Attributes:
        files, offsets, lengths: `(records,)`: the file's number, and first byte and bytes of the content.
        labels: int64 `(records,)`.
        texts: `(records,)`, the classes' names; "" where a record has none.
    """

    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    texts: np.ndarray

    def name(self, paths, record) -> str:
        """A record's name for messages."""
        return f"{paths[self.files[record]]}, byte {self.offsets[record]}"

    def files_of(self, paths, chosen) -> Files:
        """Where some of the records are read."""
        numbers, used = np.unique(self.files[chosen], return_inverse=True)
        root = os.path.dirname(paths[0])
        return Files([paths[number] for number in numbers], root, used, self.offsets[chosen])


def scan(paths: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
                    raise UserError(f"{path!r} is no whole, uncompressed TFRecord file: byte {offset}.")
                rows.append((number, offset + HEADER, length))
                offset += HEADER + length + FOOTER
    if not rows:
        raise UserError(f"{paths[0]!r} has no records.")
    return tuple(np.array(rows, np.int64).T)


def read_index(paths: list[str], form: str, label_of: Callable) -> Index:
    """Where records lie and what their labels are: a pass over the files, kept in the user's cache folder.

    Args:
        paths: of TFRecord files.
        form: of the records, in words.
        label_of: from a record to its int64 label and its class's name, "" for none.

    Raises:
        UserError: a file that is none, was cut off, or lacks labels.
    """
    stamps = "\n".join(f"{os.path.abspath(p)} {os.stat(p).st_size} {os.stat(p).st_mtime_ns}" for p in paths)
    kept = cache_folder() / f"index-{hashlib.sha256(f'{form} {stamps}'.encode()).hexdigest()[:32]}.npz"
    if kept.is_file():
        with np.load(kept) as file:  # allow_pickle is off
            return Index(**file)
    places = scan(paths)
    dataset = tf.data.TFRecordDataset(paths).map(label_of, tf.data.AUTOTUNE).batch(256)
    try:
        batches = list(dataset.prefetch(2).as_numpy_iterator())
    except tf.errors.OpError as error:
        raise UserError(f"{paths[0]!r} has no int64 label, or is damaged: {error.message[:120]}") from None
    labels, texts = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    found = Index(*places, labels, np.char.decode(texts.astype(bytes), "utf-8"))
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
