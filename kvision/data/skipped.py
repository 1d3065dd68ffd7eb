"""Files that are skipped because they fail to decode; whatever else goes wrong ends the reading."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from kvision.data.decoding import reason
from kvision.data.sources import Source
from kvision.errors import UserError
from kvision.names import counted, plain, shown


@dataclass(frozen=True)
class Unreadable:
    """A file that failed to decode.

    Attributes:
        reason: in a few words.
        class_name: of its label.
    """

    reason: str
    class_name: str


class Skipped:
    """Decides what becomes of an image that could not be prepared.

    Args:
        source: of the images.
        most: share of them that may fail to decode.

    Attributes:
        unreadable: those that failed to decode, by name, as they are met.
        failure: what ended the reading; None if nothing did.
    """

    def __init__(self, source: Source, most: float):
        self.source, self.most = source, most
        self.unreadable: dict[str, Unreadable] = {}
        self.failure: Exception | None = None

    def add(self, index: int, prepare: Callable) -> None:
        """Notes an image that fails to decode.

        Args:
            index: of the image.
            prepare: does again, with no arguments, what failed.

        Raises:
            OSError: the image cannot be read.
            UserError: too many images fail to decode.
            Exception: whatever else `prepare` raises. All of these are kept in `failure`.
        """
        try:
            self._add(index, prepare)
        except Exception as error:
            self.failure = error
            raise

    def _add(self, index, prepare):
        name = self.source.name_of(index)
        if name in self.unreadable:
            return
        why = self._reason(index, name)
        if why is None:
            prepare()
            raise OSError(f"{name!r} could be read at the second attempt only.")
        self.unreadable[name] = Unreadable(why, self.source.class_names[self.source.labels[index]])
        count, size = len(self.unreadable), self.source.size
        if count > self.most * size or count == size:
            raise UserError(
                f"{count} of {counted(size, 'image')} failed to decode, `max_unreadable` is {self.most:g}; "
                f"the last is {name!r}: {why}."
            )

    def _reason(self, index, name) -> str | None:
        try:
            image = self.source.image(tf.constant(index, tf.int64))
        except tf.errors.NotFoundError:
            raise FileNotFoundError(f"{name!r} is not there any more.") from None
        except tf.errors.PermissionDeniedError:
            raise PermissionError(f"{name!r} may not be read.") from None
        except tf.errors.InvalidArgumentError as error:
            raise UserError(f"{name!r} is no record of an image: {_first_line(error)}.") from None
        except (tf.errors.OpError, OSError) as error:
            raise OSError(f"{name!r} cannot be read: {_first_line(error)}.") from None
        return reason(image.numpy()) if image.dtype == tf.string else None


@contextlib.contextmanager
def read_errors(opened: Sequence) -> Iterator[None]:
    """Raises what ended the reading of one of `opened`, instead of TensorFlow's error that follows from it.

    Args:
        opened: each a `Data`; more may be added in the meantime.

    Raises:
        OSError: an image cannot be read.
        UserError: too many images fail to decode.
    """
    try:
        yield
    except Exception:
        for data in opened:
            if data.skipped.failure:
                raise data.skipped.failure from None
        raise


def _first_line(error) -> str:
    return shown(plain(str(error).partition("\n")[0])[:200])
