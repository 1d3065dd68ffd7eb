"""Objects in images: their boxes and classes, and what is wrong with those that are left out."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kvision.errors import UserError
from kvision.names import counted, quoted, say_once

OVERHANG = 0.01  # of a side, by which a box may reach over the border of its image without a word
LARGEST_SHARE = 2.0  # above which a coordinate is one in pixels
PADDING = -1  # the class of boxes that fill up an image's


class Box(NamedTuple):
    """A box as a dataset has it.

    Attributes:
        image: place of its image.
        corners: left, top, right and bottom.
        label: a key of the dataset's classes.
        crowd: whether it is ignored, as a group of objects or as a difficult one.
        area: of the object, in the squared unit of the corners; None for the box's.
    """

    image: int
    corners: Sequence[float]
    label: Hashable
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects in all images of a split, in the order of the images.

    Attributes:
        boxes: float32 `(objects, 4)`, xyxy, in pixels, or as shares of the image's sides.
        classes: int32 `(objects,)`, places among the class names.
        crowd: uint8 `(objects,)`, 1 for those that training and evaluation ignore.
        area: float32 `(objects,)`, in squared pixels, or as shares of the image.
        starts: int64 `(images + 1,)`, where those of each image begin.
        sizes: int32 `(images, 2)`, height and width that images must have; None where boxes are shares.
        faults: sentences on boxes that were left out or cut.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray | None
    faults: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """Largest number of objects of an image, at least 1."""
        return max(1, int(np.diff(self.starts).max(initial=0)))

    def of(self, index, image_size) -> dict:
        """The objects of an image, in pixels.

        Args:
            index: tensor, the image's place.
            image_size: int32 `(2,)`, the image's height and width.

        Returns:
            A dict of `"boxes"`, `"classes"`, `"crowd"` and `"area"`, with as many rows as the image has.

        Raises:
            tf.errors.InvalidArgumentError: the image has another size than it must, see `check_size`.
        """
        names = ("boxes", "classes", "crowd", "area")
        with tf.init_scope():  # so that a graph refers to them and holds no copy
            arrays = {name: tf.constant(getattr(self, name)) for name in names}
            starts = tf.constant(self.starts)
            sizes = None if self.sizes is None else tf.constant(self.sizes)
        objects = {name: array[starts[index] : starts[index + 1]] for name, array in arrays.items()}
        if sizes is None:
            height, width = tf.unstack(tf.cast(image_size, tf.float32))
            objects["boxes"] *= tf.stack([width, height, width, height])
            objects["area"] *= width * height
            return objects
        right = tf.debugging.Assert(tf.reduce_all(sizes[index] == image_size), ["The image's size is wrong."])
        with tf.control_dependencies([right]):
            return {name: tf.identity(part) for name, part in objects.items()}

    def check_size(self, index: int, image_size: tuple[int, int]) -> None:
        """A UserError, whose sentence lacks its subject, for an image whose boxes are for another size."""
        if self.sizes is not None and tuple(self.sizes[index]) != tuple(image_size):
            (height, width), (image_height, image_width) = self.sizes[index].tolist(), image_size
            turned = (height, width) == (image_width, image_height)
            how = "; --noexif reads an image with an EXIF orientation as it is stored" if turned else ""
            raise UserError(
                f"has {image_width} x {image_height} pixels, as it is read, and its boxes are for "
                f"{width} x {height}{how}"
            )

    def with_classes(self, places: Sequence[int]) -> "Objects":
        """The same objects with other classes: the place of each class among them."""
        return dataclasses.replace(self, classes=np.array(places, np.int32)[self.classes])

    def digest(self) -> bytes:
        """Bytes of all fields, to compare splits by."""
        sizes = b"" if self.sizes is None else self.sizes.astype("<i4").tobytes()
        parts = (("boxes", "<f4"), ("classes", "<i4"), ("crowd", "u1"), ("area", "<f4"), ("starts", "<i8"))
        return sizes + b"".join(getattr(self, name).astype(dtype).tobytes() for name, dtype in parts)

    def report(self, strict: bool) -> None:
        """Says on stderr what is wrong with boxes; with `strict`, that is a UserError."""
        if self.faults and strict:
            raise UserError(f"{' '.join(self.faults)} `strict` asks for boxes without a fault.")
        for sentence in self.faults:
            say_once(sentence)


def gather(
    boxes: Sequence[Box],
    places: Mapping[Any, int],
    count: int,
    name_of: Callable[[int], str],
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Objects:
    """The objects of a split. Boxes are cut at the borders of their images.

    Left out are those that are inverted, without an area, outside of their image or of unknown classes.

    Args:
        boxes: in any order.
        places: of the classes among the class names.
        count: number of images.
        name_of: from the place of an image to the name of the file that has its boxes.
        sizes: height and width of each image in pixels; None where boxes are shares of these.

    Raises:
        UserError: all boxes are left out, or are shares where pixels are expected.
    """
    images = np.array([box.image for box in boxes], np.int64)
    order = np.argsort(images, kind="stable")
    boxes, images = [boxes[place] for place in order], images[order]
    corners = np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
    classes = np.array([places.get(box.label, PADDING) for box in boxes], np.int32)
    finite = np.abs(corners[np.isfinite(corners)])
    if sizes is not None and len(finite) and finite.max() <= 1:
        raise UserError(
            "No box is larger than a pixel: boxes in pixels were expected, and these seem to be shares of "
            "their images' sides."
        )
    across = np.ones((count, 2)) if sizes is None else np.array(sizes, np.float64).reshape(-1, 2)[:, ::-1]
    most = np.tile(across[images], 2)
    with np.errstate(invalid="ignore"):
        extents = corners[:, 2:] - corners[:, :2]
        cut = np.clip(corners, 0, most)
        over = np.abs(cut - corners).max(1, initial=0) > OVERHANG * most.min(1, initial=np.inf)
    whole = (cut[:, 2:] > cut[:, :2]).all(1)
    kinds = {  # the first that applies
        "of an unknown class": classes == PADDING,
        "with coordinates that are no numbers": ~np.isfinite(corners).all(1),
        "with the right left of the left, or the bottom above the top": (extents < 0).any(1),
        "of zero area": (extents == 0).any(1),
        "outside of the image": ~whole,
    }
    good, reasons = np.full(len(boxes), True), []
    for kind, bad in kinds.items():
        if len(bad := np.flatnonzero(bad & good)):
            first = boxes[bad[0]]
            what = quoted(first.label) if kind.endswith("class") else list(map(float, first.corners))
            reasons.append(f"{len(bad)} {kind} (first {what} in {name_of(first.image)!r})")
            good[bad] = False
    faults = []
    if reasons:
        if sizes is None and len(finite) and finite.max() > LARGEST_SHARE:
            reasons.append("shares of the image's sides were expected, in [0, 1]")
        faults.append(f"Left out {counted(int((~good).sum()), 'box')}: {'; '.join(reasons)}.")
        if not good.any():
            raise UserError(f"None of {counted(len(boxes), 'box')} can be used: {'; '.join(reasons)}.")
    rows = np.column_stack([images, classes, corners])[good]
    if again := len(rows) - len(np.unique(rows, axis=0)):
        faults.append(f"Counted as well: {counted(again, 'box')}, equal to another of the image and class.")
    if len(overhanging := np.flatnonzero(good & over)):
        name = name_of(int(images[overhanging[0]]))
        sides = "image's border" if len(overhanging) == 1 else "borders of images"
        part = f"{len(overhanging)} of {counted(int(good.sum()), 'box')}"
        faults.append(f"Cut {part} at the {sides}, the first in {name!r}.")
    own = np.array([np.nan if box.area is None else box.area for box in boxes], np.float64)
    area = np.where(np.isnan(own), np.prod(cut[:, 2:] - cut[:, :2], 1), own)
    return Objects(
        cut[good].astype(np.float32),
        classes[good],
        np.array([box.crowd for box in boxes], np.uint8)[good],
        area[good].astype(np.float32),
        np.searchsorted(images[good], np.arange(count + 1)),
        None if sizes is None else np.array(sizes, np.int32).reshape(-1, 2),
        tuple(faults),
    )


def padded(objects: dict, most: int) -> dict:
    """The same fields with exactly `most` rows: the first ones, or others of zeros, whose class is -1."""

    def fill(name, part):
        part = part[:most]
        rows = [[0, most - tf.shape(part)[0]], *[[0, 0]] * (len(part.shape) - 1)]
        value = tf.constant(PADDING if name == "classes" else 0, part.dtype)
        return tf.ensure_shape(tf.pad(part, rows, constant_values=value), (most, *part.shape[1:]))

    return {name: fill(name, part) for name, part in objects.items()}
