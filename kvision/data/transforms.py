"""Augmentations: functions from an example, a seed and a `Frame` to an example of the network's size.

An example is a dict of `"image"`, encoded or pixels `(height, width, channels)`, and whatever else there is;
`"mask"`, int32 `(height, width)`, moves with the image, which then is decoded; so do `"boxes"`, float32
`(objects, 4)`, xyxy in pixels, of which some may be left out, together with their rows of `"classes"` and
`"crowd"`, and `"proposals"`, boxes too. Some augmentations take more examples with boxes from the list
`"others"`, as many as `OTHERS` says. The seed is two integers; all random numbers follow from it. Each
function in `AUGMENTATIONS` has its name in `kvision.choices` too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from kvision.data.decoding import LUMA, decode
from kvision.data.images import (
    CORNER_GREY,
    GREY,
    covered,
    fit,
    letterbox,
    place,
    place_mask,
    random_box,
    random_crop,
    random_crop_mask,
)

SCALES = (0.5, 2.0)  # of `scale_crop_flip`
BOX_SCALES = (0.1, 2.0)  # with boxes (Ghiasi et al. 2021, "Simple Copy-Paste"; torchvision's ScaleJitter)
LEAST_SEEN, LEAST_SIDE = 0.2, 2.0  # of a box that was cut: share of its area, pixels (YOLOX's box_candidates)
MOSAIC_SCALES = MIXUP_SCALES = (0.5, 1.5)  # YOLOX's nano and tiny, and its MixUp
SHIFT = 0.1  # of a mosaic, as a share of the frame; YOLOX's `translate`
OTHERS = {"mosaic": 3, "mosaic_mixup": 4}  # how many more examples an augmentation takes
OF_OBJECTS = ("boxes", "classes", "crowd")
BOXES = ("boxes", "proposals")
JITTER = 0.4  # largest change of brightness, contrast and saturation

AUGMENTATIONS: dict[str, Callable] = {}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Settings of the images that an augmentation gives.

    Attributes:
        size: `(height, width)`.
        channels: 3, or 1 for grey.
        crop, interpolation: of `fit`; the interpolation without augmentation.
        min_crop_area: smallest share of an image's area that a random box covers.
        exif: whether an encoded image is turned as its EXIF orientation says.
        whole: whether, without augmentation, images without a mask or boxes are letterboxed too.
        letterbox: form of `images.letterbox`. What is empty is of level 127.5, beside an image in the corner
            114.
    """

    size: tuple[int, int]
    channels: int = 3
    crop: float = 1.0
    interpolation: str = "bilinear"
    min_crop_area: float = 0.08
    exif: bool = True
    whole: bool = False
    letterbox: str = "centre"

    @property
    def fill(self) -> float:
        """The level of grey where there is no image."""
        return CORNER_GREY if self.letterbox == "corner" else GREY

    def pixels(self, image):
        """The pixels of an image, which may be encoded."""
        return decode(image, self.channels, self.exif) if image.dtype == tf.string else image


def augmentation(function: Callable) -> Callable:
    """Makes a function known as an augmentation, by its name."""
    AUGMENTATIONS[function.__name__] = function
    return function


@augmentation
def none(example, seed, frame):
    """`fit`, or the whole image, letterboxed."""
    image = frame.pixels(example["image"])
    if not frame.whole and not {"mask", "boxes"} & example.keys():
        return example | {"image": fit(image, frame.size, crop=frame.crop, interpolation=frame.interpolation)}
    shape = tf.shape(image)[:2]
    resized, offset = letterbox(shape, frame.size, frame.letterbox)
    moved = {"image": place(image, frame.size, resized, offset, frame.interpolation, frame.fill)}
    if "mask" in example:
        moved["mask"] = place_mask(example["mask"], frame.size, resized, offset)
    moved |= {name: place_boxes(example[name], shape, resized, offset) for name in BOXES if name in example}
    return example | moved


@augmentation
def crop(example, seed, frame):
    """`random_crop`."""
    how = {"min_area": frame.min_crop_area, "seed": seed}
    image = random_crop(example["image"], frame.size, channels=frame.channels, exif=frame.exif, **how)
    moved = {"image": image}
    if "mask" in example:
        moved["mask"] = random_crop_mask(example["mask"], frame.size, **how)
    if "boxes" in example:
        shape = tf.shape(frame.pixels(example["image"]))[:2]
        start, cut = random_box(shape, frame.min_crop_area, seed)
        objects = example | {name: example[name] - _corners(start) for name in BOXES if name in example}
        moved |= _in_frame(objects, cut, frame.size, (0, 0), frame.size)
    return example | moved


@augmentation
def crop_flip(example, seed, frame):
    """`random_crop`, mirrored half of the time."""
    return _mirrored(crop(example, seed, frame), tf.random.stateless_uniform((), seed) < 0.5)


@augmentation
def scale_crop_flip(example, seed, frame):
    """The image, letterboxed and scaled by 0.5 to 2 (with boxes by 0.1 to 2), at a random place of the frame.

    What is outside is cut off, and what is empty is grey, 255 in a mask. Mirrored half of the time;
    brightness, contrast and saturation change by up to 0.4 each.
    """
    numbers = tf.random.stateless_uniform((7,), seed)
    moved, there = _scattered(example, frame, BOX_SCALES if "boxes" in example else SCALES, numbers[:3])
    return _mirrored(_recoloured(moved, there, numbers[4:]), numbers[3] < 0.5)


@augmentation
def flip(example, seed, frame):
    """`none`, mirrored half of the time; colours change as in `scale_crop_flip`."""
    image = frame.pixels(example["image"])
    moved, there = none(example | {"image": image}, seed, frame), tf.fill((*frame.size, 1), True)
    if frame.whole or {"mask", "boxes"} & example.keys():
        resized, offset = letterbox(tf.shape(image)[:2], frame.size, frame.letterbox)
        there = covered(frame.size, resized, offset)[..., None]
    numbers = tf.random.stateless_uniform((4,), seed)
    return _mirrored(_recoloured(moved, there, numbers[1:]), numbers[0] < 0.5)


@augmentation
def mosaic(example, seed, frame):
    """Four images, each letterboxed and scaled by 0.5 to 1.5 alike, that meet at a random point.

    What is outside is cut off, and what is empty is grey. Mirrored half of the time, and colours change as in
    `scale_crop_flip`. From YOLOv4 (Bochkovskiy et al. 2020) in YOLOX's form, but without rotation and shear,
    after which boxes no longer are tight; and images end at the frame alone, not at the mosaic's border too.
    """
    numbers = tf.random.stateless_uniform((9,), seed)
    scale = _between(MOSAIC_SCALES, numbers[0])
    middle = 0.5 + SHIFT * (2 * numbers[1:3] - 1) + scale * (numbers[3:5] - 0.5)  # as a share of the frame
    middle = tf.cast(tf.round(middle * frame.size), tf.int32)
    image, there, objects = tf.fill((*frame.size, frame.channels), frame.fill), False, []
    for corner, one in enumerate((example, *example["others"][:3])):
        before = (corner < 2, corner % 2 == 0)  # above and to the left of the middle
        shape = tf.shape(one["image"])[:2]
        resized = _resized(shape, frame.size, scale)
        offset = middle - tf.where(before, resized, 0)
        here = covered(frame.size, resized, offset)[..., None]
        image = tf.where(here, place(one["image"], frame.size, resized, offset), image)
        there |= here
        objects.append(_in_frame(one, shape, resized, offset, frame.size))
    moved = {name: part for name, part in example.items() if name != "others"} | {"image": image}
    moved |= {name: tf.concat([one[name] for one in objects], 0) for name in objects[0]}
    return _mirrored(_recoloured(moved, there, numbers[6:]), numbers[5] < 0.5)


@augmentation
def mosaic_mixup(example, seed, frame):
    """`mosaic`, blended half and half with another image, scaled by 0.5 to 1.5 and mirrored half of the time.

    MixUp (Zhang et al. 2018) in YOLOX's form: the objects of both count alike.
    """
    below = mosaic(example, seed, frame)
    numbers = tf.random.stateless_uniform((13,), seed)[9:]  # the first ones are the mosaic's
    above, _ = _scattered(example["others"][3], frame, MIXUP_SCALES, numbers[:3])
    above = _mirrored(above, numbers[3] < 0.5)
    moving = (*OF_OBJECTS, "proposals") if "proposals" in above else OF_OBJECTS
    moved = {name: tf.concat([below[name], above[name]], 0) for name in moving}
    return below | moved | {"image": (below["image"] + above["image"]) / 2}


def _between(limits, number):
    return limits[0] + number * (limits[1] - limits[0])


def _resized(shape, size, scale):
    """The size of an image of the size `shape`, letterboxed to `size` and scaled."""
    sides = tf.cast(shape, tf.float32)
    return tf.maximum(tf.cast(tf.round(scale * tf.reduce_min(size / sides) * sides), tf.int32), 1)


def _scattered(example, frame, scales, numbers) -> tuple:
    """The example, letterboxed, scaled and laid at a random place of the frame; and mask of its pixels."""
    image = frame.pixels(example["image"])
    shape = tf.shape(image)[:2]
    resized = _resized(shape, frame.size, _between(scales, numbers[0]))
    offset = tf.cast(tf.round(numbers[1:3] * tf.cast(frame.size - resized, tf.float32)), tf.int32)
    moved = {"image": place(image, frame.size, resized, offset, fill=frame.fill)}
    if "mask" in example:
        moved["mask"] = place_mask(example["mask"], frame.size, resized, offset)
    if "boxes" in example:
        moved |= _in_frame(example, shape, resized, offset, frame.size)
    return example | moved, covered(frame.size, resized, offset)[..., None]


def _recoloured(example, there, numbers) -> dict:
    image = example["image"]
    jittered = _jittered(image, there, 1 + JITTER * (2 * numbers - 1))
    return example | {"image": tf.where(there, jittered, image)}


def _corners(sides):
    """Rows and columns `(2,)` in the order of boxes, float32 `(4,)`."""
    return tf.tile(tf.cast(sides, tf.float32)[::-1], [2])


def place_boxes(boxes, shape, resized, offset):
    """`place` of boxes in an image of the size `shape`."""
    return boxes * _corners(resized) / _corners(shape) + _corners(offset)


def _in_frame(example, shape, resized, offset, size) -> dict:
    """The objects and proposals that `place` leaves enough of, with their boxes cut at the border."""
    moved = {}
    for name in BOXES:
        if name not in example:
            continue
        boxes = place_boxes(example[name], shape, resized, offset)
        cut = tf.clip_by_value(boxes, 0.0, _corners(size))
        sides, whole_sides = (part[:, 2:] - part[:, :2] for part in (cut, boxes))
        seen = tf.reduce_prod(sides, 1) > LEAST_SEEN * tf.reduce_prod(whole_sides, 1)
        seen &= tf.reduce_all(sides > LEAST_SIDE, 1)
        rows = {other: example[other] for other in OF_OBJECTS if name == "boxes"} | {name: cut}
        moved |= {other: tf.boolean_mask(part, seen) for other, part in rows.items()}
    return moved


def _mirrored(example, chosen):
    """The example, with its left on the right if that is `chosen`."""
    width = example["image"].shape[1]

    def mirrored(name):
        if name not in BOXES:
            return tf.reverse(example[name], [1])
        left, top, right, bottom = tf.unstack(example[name], axis=1)
        return tf.stack([width - right, top, width - left, bottom], 1)

    return example | {
        name: tf.cond(chosen, lambda name=name: mirrored(name), lambda name=name: example[name])
        for name in ("image", "mask", *BOXES)
        if name in example
    }


def _jittered(image, there, factors):
    """Brightness, contrast and saturation times a factor each, as torchvision's ColorJitter has them.

    Contrast is that to the mean of the pixels that are `there`.
    """

    def grey(image):
        weights = [1.0] if image.shape[-1] == 1 else [weight / 2**16 for weight in LUMA]
        return tf.linalg.matmul(image, tf.constant(weights)[:, None])

    def blended(image, other, factor):
        return tf.clip_by_value(other + factor * (image - other), 0, 255)

    brightness, contrast, saturation = tf.unstack(factors)
    image = blended(image, 0.0, brightness)
    weights = tf.cast(there, tf.float32)
    mean = tf.reduce_sum(grey(image) * weights) / tf.reduce_sum(weights)
    image = blended(image, mean, contrast)
    return blended(image, grey(image), saturation)
