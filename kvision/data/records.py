"""TFRecord files read by index: each record's position is found once, and no record is read to skip it."""

import hashlib
import io
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kvision.data.cache import cache_folder
from kvision.data.identity import Files, trace
from kvision.errors import UserError
from kvision.files import write_whole
from kvision.names import listed, plain, quoted, say_once, shown

HEADER, FOOTER = 12, 4  # bytes around a record: its length and the lengths' checksum; its own checksum


@dataclass(frozen=True)
class Index:
    """Positions of records in their files.

    Attributes:
        files: int64 `(records,)`, the number of each record's file.
        offsets, lengths: int64 `(records,)`, the first byte and the number of bytes of the content.
        labels: int64 `(records,)`.
        values: int64 `(classes,)`, the labels that there are, sorted.
        texts: `(classes,)`, their names; "" where no record has one.
    """

    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    values: np.ndarray
    texts: np.ndarray

    def name(self, paths, record) -> str:
        """A record's name for messages."""
        return f"{shown(paths[self.files[record]])}, byte {self.offsets[record]}"

    def files_of(self, paths, chosen) -> Files:
        """The files that some of the records are read from."""
        numbers, used = np.unique(self.files[chosen], return_inverse=True)
        root = os.path.dirname(paths[0])
        return Files([paths[number] for number in numbers], root, used, self.offsets[chosen])


def scan(paths: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the records of uncompressed TFRecord files by their lengths alone.

    Raises:
        ValueError: a file is not a TFRecord file, or was cut off.
    """
    rows = []
    for number, path in enumerate(paths):
        if not os.path.isfile(path):
            raise UserError(f"{path!r} is not a file: the pattern must match TFRecord files alone.")
        size, offset = os.path.getsize(path), 0
        with open(path, "rb", buffering=0) as file:
            while offset < size:
                file.seek(offset)
                header = file.read(HEADER)
                length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else size
                if offset + HEADER + length + FOOTER > size:
                    raise UserError(_damage(path, offset, header))
                rows.append((number, offset + HEADER, length))
                offset += HEADER + length + FOOTER
    if not rows:
        raise UserError(f"{paths[0]!r} has no records.")
    return tuple(np.array(rows, np.int64).T)


def read_index(paths: list[str], form: str, label_of: Callable, keys: Mapping | None = None) -> Index:
    """Positions and labels of records, from a pass over the files that is kept in the user's cache folder.

    Args:
        paths: of TFRecord files.
        form: of the records, in words.
        label_of: from a record to its int64 label and its class's name, "" for none.
        keys: the features that `label_of` reads, for the message where one is missing.

    Raises:
        UserError: a file is not a TFRecord file, was cut off, or lacks labels; one label has two names.
    """
    traces = "\n".join(map(trace, paths))
    digest = hashlib.sha256(f"{form}, 3 {traces}".encode(errors="surrogateescape")).hexdigest()[:32]
    kept = cache_folder() / f"index-{digest}.npz"
    if (index := _load(kept, paths)) is not None:
        return index
    places = scan(paths)
    dataset = tf.data.TFRecordDataset([os.fsencode(path) for path in paths])
    batches = dataset.map(label_of, tf.data.AUTOTUNE).batch(256).prefetch(2)
    labels, text_of = [], {}
    try:
        for of_records, texts in batches.as_numpy_iterator():
            labels.append(of_records)
            _collect(text_of, of_records, texts)
    except tf.errors.OpError as error:
        raise UserError(_fault(paths, places, keys or {}, error)) from None
    values = np.array(sorted(text_of), np.int64)
    texts = np.array([text_of[value] for value in values.tolist()])
    index = Index(*places, np.concatenate(labels), values, texts)
    if len(index.labels) != len(index.offsets):
        raise UserError(f"{paths[0]!r} changed while it was read.")
    _keep(kept, index)
    return index


def reader(paths: list[str], index: Index, chosen: np.ndarray) -> Callable:
    """From a tensor, a place in `chosen`, to the content of that record."""

    def read(place):
        record = chosen[place]
        with open(paths[index.files[record]], "rb", buffering=0) as file:
            return os.pread(file.fileno(), int(index.lengths[record]), int(index.offsets[record]))

    return lambda place: tf.ensure_shape(tf.numpy_function(read, [place], tf.string, stateful=False), ())


def _load(kept, paths) -> Index | None:
    """The index that is kept for these files; None where there is none, or it is damaged."""
    if not os.path.isfile(kept):
        return None
    try:
        with open(kept, "rb") as file, np.load(file) as arrays:  # allow_pickle is off
            index = Index(**arrays)
        sizes = np.array([os.path.getsize(path) for path in paths])
        of_records = (index.files, index.offsets, index.lengths, index.labels)
        whole = (
            all(array.dtype == np.int64 and array.shape == index.labels.shape for array in of_records)
            and index.values.dtype == np.int64
            and len(index.labels) > 0
            and np.array_equal(index.values, np.unique(index.labels))
            and index.texts.shape == index.values.shape
            and index.texts.dtype.kind == "U"
            and index.files.min() >= 0
            and index.lengths.min() >= 0
            and index.offsets.min() >= HEADER
            and bool(np.all(index.offsets + index.lengths + FOOTER <= sizes[index.files]))
        )
    except Exception:  # whatever a damaged file makes its reader raise
        whole = False
    if whole:
        return index
    say_once(f"The index of TFRecord files that was kept in {str(kept)!r} is damaged and is made anew.")
    return None


def _keep(kept, index) -> None:
    content = io.BytesIO()
    np.savez(content, **vars(index))
    try:
        write_whole(kept, content.getvalue())
    except OSError as error:
        say_once(f"The index of TFRecord files is not kept in {str(kept.parent)!r}: {error.strerror}.")


def _collect(text_of, labels, texts) -> None:
    """Adds the names of labels; every record's is compared with what is known."""
    for label, text in {*zip(labels.tolist(), texts.tolist(), strict=True)}:
        try:
            name = text.decode("utf-8") if isinstance(text, bytes) else text
        except UnicodeDecodeError:
            raise UserError(
                f"The name of the class with label {label} is not UTF-8: {quoted(text)}."
            ) from None
        known = text_of.get(label) or name
        if name and known != name:
            raise UserError(f"Records with the label {label} have two names: {listed([known, name])}.")
        text_of[label] = known


def _damage(path, offset, header) -> str:
    if offset:
        return f"{path!r} is damaged or was cut off: it has no whole record at byte {offset}."
    form = "is compressed with gzip" if header.startswith(b"\x1f\x8b") else "does not begin with a record"
    return f"{path!r} is not a whole, uncompressed TFRecord file: it {form}."


def _fault(paths, places, keys, error) -> str:
    """The fault of the first record that lacks one of the keys."""
    for number, offset, length in zip(*(place.tolist() for place in places), strict=True):
        with open(paths[number], "rb", buffering=0) as file:
            content = os.pread(file.fileno(), length, offset)
        where = f"{paths[number]!r}, the record at byte {offset}"
        try:
            there = tf.train.Example.FromString(content).features.feature
        except Exception:  # of protobuf, on which we do not depend
            return f"{where} is not a tf.train.Example, or is damaged."
        for key, feature in keys.items():
            kind = {tf.int64: "int64", tf.string: "bytes"}[feature.dtype]
            if key not in there:
                if feature.default_value is None:
                    return f"{where} has no key {key!r}; its keys are {listed(sorted(there), 8)}."
            elif (count := len(getattr(there[key], f"{kind}_list").value)) != 1:
                return f"{where} has {count} {kind} values in {key!r}; one was expected."
    return f"{paths[0]!r} is damaged: {quoted(plain(error.message))}."
