"""Decoding, fitting to the network's input, and augmentation of single images."""

import tensorflow as tf


def decode(contents, channels):
    """An encoded JPEG, PNG, BMP, GIF or WebP as uint8 `(height, width, channels)`; GIF: the first frame."""
    return tf.io.decode_image(contents, channels=channels, expand_animations=False)


def fit(image, size):
    """Cuts the largest centred box of the output's aspect ratio and resizes it (bilinear, antialiased).

    Args:
        image: `(height, width, channels)`, any dtype.
        size: `(height, width)` of the output.

    Returns:
        float32 `(*size, channels)` in the range of the input.
    """
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.constant(size, tf.float32)
    box = tf.maximum(tf.cast(tf.round(target * tf.reduce_min(shape / target)), tf.int32), 1)
    start = (tf.shape(image)[:2] - box) // 2
    return _crop_and_resize(image, start, box, size)


def random_crop(image, size, *, min_area, seed):
    """Cuts a random box of at least `min_area` of the image and resizes it, as in Inception's training.

    Args:
        image: `(height, width, channels)`.
        size: `(height, width)` of the output.
        min_area: smallest share of the image's area, in (0, 1].
        seed: two integers: the same ones give the same box.

    Returns:
        float32 `(*size, channels)`.
    """
    start, box, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(min_area, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return _crop_and_resize(image, start[:2], box[:2], size)


def _crop_and_resize(image, start, box, size):
    image = tf.slice(image, tf.concat([start, [0]], 0), tf.concat([box, [-1]], 0))
    return tf.image.resize(image, size, antialias=True)


def read_image(path, size, channels=3):
    """Reads one image as a network takes it.

    Args:
        path: of an image file.
        size: `(height, width)`.
        channels: 3, or 1 for grey.

    Returns:
        A float32 array `(height, width, channels)` in [0, 255].

    Raises:
        OSError: there is no such file.
        ValueError: the file is no image.
    """
    with open(path, "rb") as file:
        contents = file.read()
    try:
        image = decode(contents, channels)
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"{str(path)!r} is no image that can be read.") from None
    return fit(image, size).numpy()
