"""Files that are skipped because they fail to decode; whatever else goes wrong ends the reading."""

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kvision.data import clips, decoding, masks
from kvision.data.sources import Source
from kvision.errors import UserError
from kvision.names import counted, plain, shown

MOST_FILES = 10  # unreadable files, and classes of such, in a message


@dataclass(frozen=True)
class Unreadable:
    """A file that failed to decode.

    Attributes:
        reason: in a few words.
        class_name: of its label; "" where it has none.
    """

    reason: str
    class_name: str


class Skipped:
    """Decides what becomes of an image that could not be prepared, itself or its mask.

    Args:
        source: of the images.
        split: name of the split that they are.
        most: share of them that may fail to decode.
        exif: whether they are turned as their EXIF orientation says.

    Attributes:
        unreadable: files that failed to decode, by name, as they are met.
        failure: what ended the reading; None if nothing did.
    """

    def __init__(self, source: Source, split: str, most: float, exif: bool):
        self.source, self.split, self.most, self.exif = source, split, most, exif
        self.unreadable: dict[str, Unreadable] = {}
        self.failure: Exception | None = None

    def add(self, indices: Sequence[int], prepare: Callable) -> None:
        """Notes images that fail to decode.

        Args:
            indices: of the images that make one example.
            prepare: does again, with no arguments, what failed.

        Raises:
            OSError: the image cannot be read.
            UserError: too many images fail to decode; a mask does not fit its image or the classes; an image
                has another size than its boxes are for.
            Exception: whatever else `prepare` raises. All of these are kept in `failure`.
        """
        try:
            self._add(indices, prepare)
        except Exception as error:
            self.failure = error
            raise

    def _add(self, indices, prepare):
        if not sum(map(self._is_unreadable, indices)):  # each of them is looked at
            prepare()
            name = self.source.name(indices[0], "image")
            raise OSError(f"{name!r} could be read at the second attempt only.")

    def _is_unreadable(self, index) -> bool:
        """Whether an image fails to decode; if so, it is noted."""
        if self.source.clip:
            return self._is_damaged(index, self.source.clip)
        fields = self.source.fields
        names = {field: self.source.name(index, field) for field in fields}
        if not self.unreadable.keys().isdisjoint(names.values()):
            return True
        example = {field: _read(read, index, names[field]) for field, read in fields.items()}
        for field, name in names.items():
            if (why := _damage(field, example[field], name)) is not None:
                self._note(index, name, why)
                return True
        if "mask" in example:
            self._check_mask(example, names["mask"])
        if self.source.objects:
            try:
                self.source.objects.check_size(index, self._size(example["image"]))
            except UserError as error:
                raise UserError(f"{names['image']!r} {error}.") from None
        return False

    def _is_damaged(self, index, clip) -> bool:
        """Whether a clip has a frame that fails to decode; if so, it is noted."""
        name = self.source.name_of(index)
        if name in self.unreadable:
            return True
        try:
            why = clips.reason(clip(index, np.arange, self.exif))
        except FileNotFoundError:
            raise FileNotFoundError(f"{name!r} is not there any more.") from None
        if why is not None:
            self._note(index, name, why)
        return why is not None

    def _note(self, index, name, why):
        source = self.source
        labels = source.single_labels
        class_name = "" if labels is None else source.class_names[labels[index]]
        self.unreadable[name] = Unreadable(why, class_name)
        count, size = len(self.unreadable), self.source.size
        if count > self.most * size or count == size:
            raise UserError(
                f"{count} of {counted(size, 'image')} of the split {self.split!r} failed to decode, "
                f"`max_unreadable` is {self.most:g}; the last is {name!r}: {why}."
            )

    def _size(self, image) -> tuple[int, int]:
        image = decoding.decode(image, 1, self.exif) if image.dtype == tf.string else image
        return tuple(image.shape[:2])

    def _check_mask(self, example, name):
        mask = masks.decode_mask(example["mask"]).numpy()
        try:
            masks.check_size(mask, self._size(example["image"]))
            masks.check_classes(mask, len(self.source.places or self.source.class_names))
        except UserError as error:
            raise UserError(f"{name!r} {error}.") from None


def _read(read, index, name) -> tf.Tensor:
    """A field of an example, as it is read."""
    try:
        return read(tf.constant(index, tf.int64))
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"{name!r} is not there any more.") from None
    except tf.errors.PermissionDeniedError:
        raise PermissionError(f"{name!r} may not be read.") from None
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{name!r} is not a record of an image: {_first_line(error)}.") from None
    except (tf.errors.OpError, OSError) as error:
        raise OSError(f"{name!r} cannot be read: {_first_line(error)}.") from None


def _damage(field, contents, name) -> str | None:
    """Reason why a field failed to decode; None where it did not, or is not encoded."""
    if contents.dtype != tf.string:
        return None
    try:
        return (masks if field == "mask" else decoding).reason(contents.numpy())
    except UserError as error:
        raise UserError(f"{name!r} {error}.") from None


@contextlib.contextmanager
def read_errors(opened: Sequence) -> Iterator[None]:
    """Raises what ended the reading of one of `opened`, instead of TensorFlow's error that follows from it.

    Args:
        opened: each a `Data`; more may be added in the meantime.

    Raises:
        OSError: an image cannot be read.
        UserError: too many images fail to decode; a mask does not fit its image or the classes.
    """
    try:
        yield
    except Exception:
        for data in opened:
            if data.skipped.failure:
                raise data.skipped.failure from None
        raise


def report_unreadable(unreadable: Mapping[str, Unreadable], strict: bool) -> None:
    """Says on stderr which files failed to decode; with `strict`, one such file is a UserError.

    Args:
        unreadable: of `kvision.data.Data`.
        strict: whether all files must be readable.
    """
    sentences = [f"{name!r} failed to decode: {file.reason}." for name, file in unreadable.items()]
    if strict and sentences:
        raise UserError(f"{sentences[0]} --strict asks for readable files alone.")
    for sentence in sentences[:MOST_FILES]:
        print(sentence, file=sys.stderr)
    if sentences:
        names = [file.class_name for file in unreadable.values() if file.class_name]
        class_counts = collections.Counter(names).most_common()
        parts = [f"{count} of {name!r}" for name, count in class_counts[:MOST_FILES]]
        parts += [f"{len(class_counts) - MOST_FILES} more classes"] * (len(class_counts) > MOST_FILES)
        by_class = f": {', '.join(parts)}" if parts else ""
        print(f"Skipped {counted(len(sentences), 'unreadable file')}{by_class}.", file=sys.stderr)


def _first_line(error) -> str:
    return shown(plain(str(error).partition("\n")[0])[:200])
