"""Masks: the class of each pixel of an image."""

import contextlib
import hashlib
import json
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from kvision.data.cache import cache_folder
from kvision.data.decoding import called, in_words, open_image
from kvision.errors import UserError
from kvision.files import write_whole

IGNORED = 255  # the value of pixels that have no class, and of padding
EXPECTED = "a PNG of class indices (1 to 16 bits of grey, or a palette) was expected"
FORMS = {"1": np.uint8, "L": np.uint8, "P": np.uint8, "I;16": np.uint16, "I": np.uint16}  # Pillow's modes
SCALES = {2: 85, 4: 17}  # by which Pillow multiplies grey of fewer bits


def decode_mask(mask):
    """The mask that is stored, int32 `(height, width)`.

    Args:
        mask: a scalar string tensor, an encoded mask, which is decoded; or integers `(height, width)`.

    Raises:
        tf.errors.InvalidArgumentError: `read_mask` raises an error.
    """
    if mask.dtype == tf.string:
        mask = called(lambda contents: read_mask(contents).astype(np.int32), mask, tf.int32)
    return tf.ensure_shape(tf.cast(mask, tf.int32), (None, None))


def read_mask(contents: bytes) -> np.ndarray:
    """Decodes a PNG of class indices, or of palette indices, whose colours do not count.

    Returns:
        uint8 or uint16 `(height, width)`.

    Raises:
        UserError: it is another kind of image; the sentence lacks its subject, the file.
        Exception: whatever a damaged file makes Pillow raise.
    """
    with open_image(contents) as image:
        if image.format != "PNG":
            raise UserError(f"has the format {image.format}: {EXPECTED}")
        if image.mode not in FORMS:
            raise UserError(f"has colours or transparency (Pillow's mode {image.mode}): {EXPECTED}")
        mask = np.asarray(image).astype(FORMS[image.mode])
        scale = SCALES.get(contents[24], 1) if image.mode == "L" else 1  # the header's bits per sample
    return mask // scale


def reason(contents: bytes) -> str | None:
    """Reason why an encoded mask fails to decode, in printable words; None where it does not.

    Raises:
        UserError: the file is not a mask, see `read_mask`.
    """
    try:
        read_mask(contents)
    except UserError:
        raise
    except Exception as error:
        return in_words(error)
    return None


def checked_mask(mask, image_size, num_classes):
    """An int32 mask, which fits the image and has known classes.

    Raises:
        tf.errors.InvalidArgumentError: `check_size` or `check_classes` raises an error.
    """
    known = tf.reduce_all((mask >= 0) & (mask < num_classes) | (mask == IGNORED))
    fits = tf.reduce_all(tf.shape(mask) == image_size)
    with tf.control_dependencies([tf.debugging.Assert(known & fits, ["The mask is wrong."])]):
        return tf.identity(mask)


def check_size(mask: np.ndarray, image_size: tuple[int, int]) -> None:
    """A UserError, whose sentence lacks its subject, for a mask of another size than its image's."""
    if mask.shape != tuple(image_size):
        (height, width), (image_height, image_width) = mask.shape, image_size
        raise UserError(
            f"has {width} x {height} pixels and its image, as it is read, {image_width} x {image_height}: "
            "a mask must be as large as its image"
        )


def check_classes(mask: np.ndarray, num_classes: int) -> None:
    """A UserError, whose sentence lacks its subject, for a mask with an unknown class."""
    unknown = np.unique(mask[((mask < 0) | (mask >= num_classes)) & (mask != IGNORED)])
    if len(unknown):
        raise UserError(
            f"has a pixel of the class {unknown[0]}: valid classes are 0 to {num_classes - 1}, and "
            f"{IGNORED} for pixels that are ignored"
        )


def classes_in(masks: Iterable[tuple[str, bytes]], key: str) -> list[int]:
    """The classes that occur in masks, sorted: a pass over all of them, kept in the user's cache folder.

    Args:
        masks: the name of each for messages, and what is encoded. Those that fail to decode are passed over.
        key: what changes when one of them does.

    Raises:
        UserError: a file is not a mask, see `read_mask`.
    """
    digest = hashlib.sha256(f"classes, 1 {key}".encode(errors="surrogateescape")).hexdigest()[:32]
    try:
        kept = json.loads((cache_folder() / f"classes-{digest}.json").read_text())
        if isinstance(kept, list) and all(isinstance(value, int) for value in kept):
            return kept
    except (OSError, ValueError):  # it is not there, or damaged
        pass
    values = set()
    for name, contents in masks:
        try:
            values.update(np.unique(read_mask(contents)).tolist())
        except UserError as error:
            raise UserError(f"{name!r} {error}.") from None
        except Exception:  # it is skipped when it is read
            continue
    classes = sorted(values - {IGNORED})
    with contextlib.suppress(OSError):
        write_whole(cache_folder() / f"classes-{digest}.json", json.dumps(classes).encode())
    return classes
