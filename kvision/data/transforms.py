"""Augmentations: functions from an example, a seed and a `Frame` to an example of the network's size.

An example is a dict of `"image"`, encoded or pixels `(height, width, channels)`, and whatever else there is;
`"mask"`, int32 `(height, width)`, moves with the image, which then is decoded. The seed is two integers; all
random numbers follow from it. Each function in `AUGMENTATIONS` has its name in `kvision.choices` too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from kvision.data.decoding import LUMA, decode
from kvision.data.images import (
    covered,
    fit,
    letterbox,
    place,
    place_mask,
    random_crop,
    random_crop_mask,
)

SCALES = (0.5, 2.0)  # of `scale_crop_flip`
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
        whole: whether, without augmentation, images without a mask are letterboxed too, as those with one.
    """

    size: tuple[int, int]
    channels: int = 3
    crop: float = 1.0
    interpolation: str = "bilinear"
    min_crop_area: float = 0.08
    exif: bool = True
    whole: bool = False

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
    if not frame.whole and "mask" not in example:
        return example | {"image": fit(image, frame.size, crop=frame.crop, interpolation=frame.interpolation)}
    resized, offset = letterbox(tf.shape(image)[:2], frame.size)
    moved = {"image": place(image, frame.size, resized, offset, frame.interpolation)}
    if "mask" in example:
        moved["mask"] = place_mask(example["mask"], frame.size, resized, offset)
    return example | moved


@augmentation
def crop(example, seed, frame):
    """`random_crop`."""
    how = {"min_area": frame.min_crop_area, "seed": seed}
    image = random_crop(example["image"], frame.size, channels=frame.channels, exif=frame.exif, **how)
    moved = {"image": image}
    if "mask" in example:
        moved["mask"] = random_crop_mask(example["mask"], frame.size, **how)
    return example | moved


@augmentation
def crop_flip(example, seed, frame):
    """`random_crop`, mirrored half of the time."""
    example = crop(example, seed, frame)
    moved = {"image": tf.image.stateless_random_flip_left_right(example["image"], seed)}
    if "mask" in example:
        mask = example["mask"][..., None]
        moved["mask"] = tf.image.stateless_random_flip_left_right(mask, seed)[..., 0]
    return example | moved


@augmentation
def scale_crop_flip(example, seed, frame):
    """The image, letterboxed and scaled by 0.5 to 2, at a random place of the frame.

    What is outside is cut off, and what is empty is grey, 255 in a mask. Mirrored half of the time;
    brightness, contrast and saturation change by up to 0.4 each.
    """
    image = frame.pixels(example["image"])
    numbers = tf.random.stateless_uniform((7,), seed)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = (SCALES[0] + numbers[0] * (SCALES[1] - SCALES[0])) * tf.reduce_min(frame.size / shape)
    resized = tf.maximum(tf.cast(tf.round(scale * shape), tf.int32), 1)
    offset = tf.cast(tf.round(numbers[1:3] * tf.cast(frame.size - resized, tf.float32)), tf.int32)
    there = covered(frame.size, resized, offset)[..., None]
    image = place(image, frame.size, resized, offset)
    moved = {"image": tf.where(there, _jittered(image, there, 1 + JITTER * (2 * numbers[4:] - 1)), image)}
    if "mask" in example:
        moved["mask"] = place_mask(example["mask"], frame.size, resized, offset)
    mirrored = numbers[3] < 0.5
    return example | {
        name: tf.cond(mirrored, lambda part=part: tf.reverse(part, [1]), lambda part=part: part)
        for name, part in moved.items()
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
