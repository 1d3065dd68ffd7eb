"""Proposals of selective search, which are found once an image and kept in the user's cache folder."""

import hashlib

import numpy as np
import tensorflow as tf

from kvision._selective_search import has_opencv, selective_search
from kvision.data.cache import Disk
from kvision.data.images import letterbox
from kvision.data.objects import padded
from kvision.data.transforms import place_boxes
from kvision.names import say_once

VERSION = 1  # of what is kept, to be raised where the search finds other boxes
WIDTH, SMALLEST = 500, 20  # of images, and of sides in these, in pixels (Girshick et al. 2014)


def find_proposals(image: np.ndarray) -> np.ndarray:
    """The proposals of an image, which is searched unless the cache folder has those of the same pixels.

    R-CNN's settings, but images less than 500 pixels wide are not enlarged: the least side of a box is 4 % of
    the width.

    Args:
        image: uint8 `(height, width, channels)`.

    Returns:
        float32 `(proposals, 4)`, xyxy in pixels, the most promising first.
    """
    width = min(WIDTH, image.shape[1])
    settings = {
        "width": width,
        "smallest": max(1, round(SMALLEST * width / WIDTH)),
        "seed": 0,
        "backend": "opencv" if has_opencv() else "numpy",
    }
    content = hashlib.sha256(image.tobytes()).hexdigest()
    kept, key = Disk(str, "proposals"), f"{VERSION} {content} {image.shape} {settings}"
    if (found := kept.get(key)) is not None:
        return np.frombuffer(found, "<f4").reshape(-1, 4).astype(np.float32)
    say_once("Searches the images for proposals, once each: they are kept in the cache folder.")
    boxes = selective_search(image, **settings)
    kept[key] = boxes.astype("<f4").tobytes()
    return boxes


def proposals_in(image):
    """`find_proposals` of a uint8 tensor."""
    return tf.ensure_shape(tf.numpy_function(find_proposals, [image], tf.float32, stateful=False), (None, 4))


def letterboxed_proposals(image: np.ndarray, size: tuple[int, int], count: int) -> np.ndarray:
    """The first proposals of an image, in the corner of a network's input.

    Args:
        image: uint8 `(height, width, channels)`.
        size: `(height, width)` of the network's input.
        count: of proposals.

    Returns:
        float32 `(count, 4)`, xyxy in pixels of the network's input; 0 behind the last one.
    """
    shape = tf.constant(image.shape[:2])
    boxes = place_boxes(find_proposals(image), shape, *letterbox(shape, size, "corner"))
    return padded({"proposals": boxes}, count)["proposals"].numpy()
