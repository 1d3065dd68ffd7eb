"""Check that the images of a split can be read: one of each class is tried, and a failure says why."""

import concurrent.futures
import os

import numpy as np
import tensorflow as tf

from kvision.data import clips, masks
from kvision.data.decoding import decode
from kvision.data.sources.source import Source
from kvision.errors import UserError
from kvision.names import counted, quoted, say_once

FORMATS = {  # by the bytes that files begin with
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
}
UNSUPPORTED = {
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"8BPS": "Photoshop",
    b"\0\0\x01\0": "ICO",
    b"\xff\x0a": "JPEG XL",
}
MOST = 3  # classes and reasons in a message


def check_images(source: Source, channels: int, where: str, *, complete: bool) -> None:
    """Decodes an image of each class with its mask, or one of all where an image has no single class.

    Args:
        source: of encoded images.
        channels: 3, or 1 for grey.
        where: the dataset and split, for messages.
        complete: whether a class without a readable image is an error; else a sentence on stderr says so.

    Raises:
        UserError: no image can be read at all, or `complete` and one class has none; a file is not a mask or
            does not fit the classes.
    """
    labels = source.single_labels
    if labels is None:
        class_names, groups = ("",), [np.arange(source.size)]
    else:
        class_names, order = source.class_names, np.argsort(labels, kind="stable")
        groups = np.split(order, np.searchsorted(labels[order], np.arange(1, len(class_names))))

    def faults_of(group) -> dict[str, list[str]] | None:
        """The names of the images before the first that can be read, by what is wrong; None if one can."""
        faults = {}
        for index in group.tolist():
            for field in source.fields or ("clip",):
                if fault := _fault(source, index, field, channels):
                    faults.setdefault(fault, []).append(source.name(index, field))
                    break
            else:
                return None
        return faults

    with concurrent.futures.ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as threads:
        faults = list(threads.map(faults_of, groups))
    lacking = [
        (name, len(group), of_class)
        for name, group, of_class in zip(class_names, groups, faults, strict=True)
        if of_class is not None
    ]
    if not lacking:
        return
    together = {}
    for _, _, of_class in lacking:
        for fault, names in of_class.items():
            together.setdefault(fault, []).extend(names)
    reasons = [
        f"{len(names)} {fault}, such as {quoted(names[0])}"
        for fault, names in sorted(together.items(), key=lambda item: -len(item[1]))[:MOST]
    ]
    shown = [f"{quoted(name)} {count}" for name, count, _ in lacking]
    shown = ", ".join([*shown[:MOST], *([f"and {len(shown) - MOST} more"] if len(shown) > MOST else [])])
    why = f" ({'; '.join(reasons)})" if reasons else ""
    if len(lacking) == len(class_names):
        by_class = f" Images by class: {shown}." if labels is not None else ""
        images = counted(source.size, "image")
        raise UserError(f"{where}: none of {images} can be read{why}.{by_class}")
    sentence = (
        f"{where}: classes without an image that can be read, with their number of files: {shown}{why}."
    )
    if complete:
        raise UserError(sentence)
    say_once(sentence)


def _fault(source, index, field, channels) -> str | None:
    """The fault of a field of an example, as a predicate of several; None where it can be read."""
    if source.clip:
        return _fault_of_clip(source.clip, index)
    try:
        contents = source.fields[field](tf.constant(index, tf.int64))
    except tf.errors.NotFoundError:
        return "are absent"
    except tf.errors.PermissionDeniedError:
        return "cannot be opened without permission"
    except tf.errors.OpError as error:
        return f"cannot be opened ({type(error).__name__.removesuffix('Error')})"
    if field == "image":
        try:
            decode(contents, channels)
        except tf.errors.OpError:
            return _form(contents.numpy())
    elif contents.dtype == tf.string:
        try:
            if masks.reason(contents.numpy()) is not None:
                return _form(contents.numpy())
            masks.check_classes(masks.read_mask(contents.numpy()), len(source.class_names))
        except UserError as error:
            raise UserError(f"{source.name(index, field)!r} {error}.") from None
    return None


def _fault_of_clip(clip, index) -> str | None:
    """`_fault` of a clip, of which the first frame is looked at."""
    try:
        why = clips.reason(clip(index, lambda count: np.zeros(1, np.int64), True))
    except FileNotFoundError:
        return "are absent"
    except PermissionError:
        return "cannot be opened without permission"
    return None if why is None else "failed to decode"


def _form(contents: bytes) -> str:
    """The kind of files with such contents, which failed to decode."""
    if not contents:
        return "are empty"
    if contents.startswith(b"version https://git-lfs"):
        return "are pointers of Git LFS, whose contents were not fetched"
    if contents[4:11] in (b"ftyphei", b"ftyphev", b"ftypmif"):
        return "have the unsupported format HEIC"
    for start, form in UNSUPPORTED.items():
        if contents.startswith(start):
            return f"have the unsupported format {form}"
    for start, form in FORMATS.items():
        if contents.startswith(start):
            return f"failed to decode (damaged {form})"
    begin = contents[:1000]
    return "are text" if begin.isascii() and b"\0" not in begin else "failed to decode (unknown format)"
