"""Fitting images to a network's input, and augmentation of single images."""

import math
import os

import tensorflow as tf

from kvision.choices import INTERPOLATIONS
from kvision.data.decoding import (
    BY_PILLOW,
    axes,
    decode,
    decode_examined,
    decode_jpeg,
    orientation_of,
    reason,
    to_channels,
    turn,
)
from kvision.data.masks import IGNORED
from kvision.errors import UserError

GREY = 127.5  # of padding
CORNER_GREY = 114.0  # beside an image in the corner, as YOLOX has it


def check_fit(crop, interpolation) -> None:
    """A ValueError for what `fit` does not know."""
    if not 0 < crop <= 1:
        raise UserError(f"`crop` must be in (0, 1]; got {crop}.")
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}; got {interpolation!r}.")


def fit(image, size, *, crop=1.0, interpolation="bilinear"):
    """Resizes the image until it just covers `size / crop`, then cuts out the centre: timm's evaluation.

    Pixels are within a third of a level of timm's on average: Pillow rounds after each direction, this does
    not.

    Args:
        image: `(height, width, channels)` in [0, 255], any dtype.
        size: `(height, width)` of the output.
        crop: share of the resized image's side that is kept, in (0, 1].
        interpolation: "bilinear" or "bicubic", antialiased.

    Returns:
        float32 `(*size, channels)` in [0, 255].

    Raises:
        ValueError: another `crop` or `interpolation`.
    """
    check_fit(crop, interpolation)
    shape = tf.shape(image)[:2]
    height, width = (math.floor(side / crop) for side in size)
    if height == width:  # torchvision's Resize truncates the longer side
        resized = shape * height // tf.reduce_min(shape)
    else:  # timm's ResizeKeepRatio rounds it
        sides = tf.cast(shape, tf.float64)
        resized = tf.round(sides / tf.reduce_min(sides / (height, width)))
    resized = tf.cast(resized, tf.float32)
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=size,
        scale=resized / tf.cast(shape, tf.float32),
        translation=-tf.round((resized - size) / 2),
        kernel_type=INTERPOLATIONS[interpolation],
        antialias=True,
    )[0]
    return tf.clip_by_value(pixels, 0, 255)  # bicubic overshoots


def letterbox(shape, size, form="centre") -> tuple:
    """Size and position of an image that is fitted inside `size` as a whole.

    Args:
        shape: `(..., 2)`, height and width of the image, or of several.
        size: `(height, width)` of the output.
        form: "centre", with the same padding on both sides; "corner", with padding below and to the right, as
            YOLOX and torchvision's R-CNNs have it; or "stretch", without padding and without the aspect
            ratio, as SSD has it.

    Returns:
        `resized` and `offset` of `place`, int32 `(..., 2)` each.
    """
    sides = tf.cast(shape, tf.float64)
    growth = size / sides
    if form != "stretch":
        growth = tf.reduce_min(growth, -1, keepdims=True)
    resized = tf.clip_by_value(tf.cast(tf.round(sides * growth), tf.int32), 1, size)
    return resized, (size - resized) // 2 if form == "centre" else tf.zeros_like(resized)


def place(image, size, resized, offset, interpolation="bilinear", fill=GREY):
    """Resizes an image and lays it on grey; what lies outside is cut off.

    Args:
        image: `(height, width, channels)` in [0, 255], any dtype.
        size: `(height, width)` of the output.
        resized: int32 `(2,)`, the height and width to which the image is resized.
        offset: int32 `(2,)`, its first row and column in the output; negative ones are cut off.
        interpolation: "bilinear" or "bicubic", antialiased.
        fill: the level of grey.

    Returns:
        float32 `(*size, channels)` in [0, 255].
    """
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=size,
        scale=tf.cast(resized / tf.shape(image)[:2], tf.float32),
        translation=tf.cast(offset, tf.float32),
        kernel_type=INTERPOLATIONS[interpolation],
        antialias=True,
    )[0]
    return tf.where(covered(size, resized, offset)[..., None], tf.clip_by_value(pixels, 0, 255), fill)


def place_mask(mask, size, resized, offset):
    """`place` of a mask, int32 `(height, width)`, by its nearest pixels; what it does not cover is 255."""
    for axis in range(2):
        side, pixels = tf.shape(mask)[axis], tf.range(size[axis]) - offset[axis]
        nearest = (2 * pixels + 1) * side // (2 * resized[axis])  # of the centre of each pixel
        mask = tf.gather(mask, tf.clip_by_value(nearest, 0, side - 1), axis=axis)
    return tf.where(covered(size, resized, offset), mask, IGNORED)


def covered(size, resized, offset):
    """Mask of the pixels that an image laid by `place` covers, bool `size`."""
    rows, columns = (
        (tf.range(size[axis]) >= offset[axis]) & (tf.range(size[axis]) < offset[axis] + resized[axis])
        for axis in range(2)
    )
    return rows[:, None] & columns


def unletterbox(prediction, shape):
    """A prediction for a letterboxed image, cut out of the padding and resized to the image's own size.

    Args:
        prediction: a mask, int32 `(height, width)`, of which the nearest pixels are taken; or logits or
            probabilities, float32 `(height, width, classes)`, which are interpolated. As large as the
            letterboxed image.
        shape: `(height, width)` of the image.

    Returns:
        The mask or values of the image, `(*shape, ...)`.
    """
    prediction = tf.convert_to_tensor(prediction)
    (height, width), (top, left) = letterbox(shape, tuple(prediction.shape[:2]))
    cut = prediction[top : top + height, left : left + width]
    if prediction.dtype.is_integer:
        return place_mask(cut, shape, shape, (0, 0))
    return tf.image.resize(cut, shape, antialias=True)


def unletterbox_boxes(boxes, shapes, size, form="centre"):
    """Boxes in letterboxed images, moved to the images' own pixels and cut at their borders.

    Args:
        boxes: float32 `(batch, boxes, 4)`, xyxy.
        shapes: int32 `(batch, 2)`, height and width of each image.
        size: `(height, width)` of the letterboxed images.
        form: of `letterbox`.

    Returns:
        float32 `(batch, boxes, 4)`.
    """

    def corners(sides):
        return tf.cast(tf.tile(sides[..., ::-1], [1, 2])[:, None], tf.float32)

    resized, offset = letterbox(shapes, size, form)
    shapes = corners(tf.convert_to_tensor(shapes))
    return tf.clip_by_value((boxes - corners(offset)) * shapes / corners(resized), 0, shapes)


def random_crop(image, size, *, min_area, seed, channels, exif=True):
    """Cuts a random box of at least `min_area` of the image and resizes it, as in Inception's training.

    Only the box of a JPEG is decoded, at the half, fourth or eighth of its size if that is still enough; its
    sides are then rounded to whole pixels of that size, by half a pixel of the output at the most.
    Bilinear; antialiased where the box is more than twice as large as the output.

    Args:
        image: an encoded image, or pixels `(height, width, channels)`.
        size: `(height, width)` of the output.
        min_area: smallest share of the image's area, in (0, 1].
        seed: two integers: the same ones give the same box.
        channels: 3, or 1 for grey; of an encoded image.
        exif: whether an encoded image is turned first, as its EXIF orientation says.

    Returns:
        float32 `(*size, channels)`.
    """

    def shrinkage(box):
        return tf.reduce_min(box // size)

    def cut_jpeg(orientation):
        transposed, mirrored = axes(orientation)
        shape = tf.io.extract_jpeg_shape(image)[:2]  # as it is stored
        shape = tf.where(transposed, shape[::-1], shape)  # as it is seen
        start, box = random_box(shape, min_area, seed)
        start = tf.where(mirrored, shape - start - box, start)
        corners = tf.stack([start, start + box])
        corners = tf.where(transposed, corners[:, ::-1], corners)  # in the stored image

        def decoder(ratio):
            begin, end = tf.unstack((corners + ratio // 2) // ratio)
            return lambda: decode_jpeg(image, tf.concat([begin, end - begin], 0), ratio)

        step = tf.searchsorted([2, 4, 8], [shrinkage(box)], side="right")[0]
        pixels = tf.switch_case(step, [decoder(ratio) for ratio in (1, 2, 4, 8)])
        return turn(to_channels(pixels, channels), orientation)

    def cut(pixels):
        (top, left), (height, width) = map(tf.unstack, random_box(tf.shape(pixels)[:2], min_area, seed))
        return pixels[top : top + height, left : left + width]

    if image.dtype == tf.string:
        orientation = orientation_of(image, exif)
        image = tf.cond(
            tf.io.is_jpeg(image) & (orientation != BY_PILLOW),
            lambda: cut_jpeg(orientation),
            lambda: cut(decode_examined(image, channels, exif, orientation)),
        )
    else:
        image = cut(image)
    return tf.cond(
        shrinkage(tf.shape(image)[:2]) < 2,
        lambda: tf.image.resize(image, size),
        lambda: tf.image.resize(image, size, antialias=True),
    )


def random_crop_mask(mask, size, *, min_area, seed):
    """`random_crop` of a mask, int32 `(height, width)`, by its nearest pixels; equal seeds, equal boxes."""
    (top, left), box = map(tf.unstack, random_box(tf.shape(mask), min_area, seed))
    cut = mask[top : top + box[0], left : left + box[1]]
    return place_mask(cut, size, size, (0, 0))


def random_box(shape, min_area, seed) -> tuple:
    """The first pixel and the size of a random box of an image, int32 `(2,)` each; see `random_crop`."""
    start, box, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([shape, [3]], 0),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return start[:2], box[:2]


def read_pixels(path, channels=3, exif=True):
    """Reads one image.

    Args:
        path: of an image file.
        channels: 3, or 1 for grey.
        exif: whether the image is turned as its EXIF orientation says.

    Returns:
        A uint8 array `(height, width, channels)`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it fails to decode, or is a pipe or device.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(f"{str(path)!r} is a pipe, socket or device: an image file was expected.")
    with open(path, "rb") as file:
        contents = file.read()
    try:
        return decode(contents, channels, exif).numpy()
    except tf.errors.OpError:
        raise UserError(f"{str(path)!r} failed to decode: {reason(contents)}.") from None


def read_image(path, size, channels=3, crop=1.0, interpolation="bilinear", exif=True):
    """Reads one image as a network takes it.

    Args:
        path: of an image file.
        size: `(height, width)`.
        channels: 3, or 1 for grey.
        crop, interpolation: of `fit`.
        exif: whether the image is turned as its EXIF orientation says.

    Returns:
        A float32 array `(height, width, channels)` in [0, 255].

    Raises:
        OSError: the file cannot be read.
        ValueError: it fails to decode, or is a pipe or device; an unknown `crop` or `interpolation`.
    """
    check_fit(crop, interpolation)
    return fit(read_pixels(path, channels, exif), size, crop=crop, interpolation=interpolation).numpy()
