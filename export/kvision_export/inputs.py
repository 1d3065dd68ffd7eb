"""The inputs of files: an image and, for some detectors, proposals beside it.

Images alone are an array. Images with proposals are a structured array with the fields "image" and
"proposals": both are counted, divided and gone through alike, each image with all that belongs to it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

IMAGE, PROPOSALS = "image", "proposals"  # names and order of a file's inputs
SERIES = "series"  # name of the input of networks that take series


def name_of(shape: Sequence[int | None]) -> str:
    """The name of the input of a file, by its shape with the batch."""
    return IMAGE if len(shape) >= 4 else SERIES


def joined(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arrays `(images, ...)` of all inputs as one structured array of float32."""
    fields = [(name, np.float32, part.shape[1:]) for name, part in parts.items()]
    images = np.empty(len(parts[IMAGE]), fields)
    for name, part in parts.items():
        images[name] = part
    return images


def named(images) -> dict[str, np.ndarray]:
    """The arrays by the names of the inputs, of one image or of several."""
    names = images.dtype.names
    return {name: images[name] for name in names} if names else {IMAGE: images}


def pixels(images) -> np.ndarray:
    """The images without what is beside them, of one or of several."""
    return named(images)[IMAGE]


def less(image, zero_point: int):
    """An image whose pixels are less by a number, with the same proposals."""
    image = image.copy()
    pixels(image)[...] -= np.float32(zero_point)
    return image
