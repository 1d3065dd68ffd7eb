"""The digits that come with the package."""

import numpy as np
import tensorflow as tf

from kvision.data.sources.source import Options, Source, check_divided
from kvision.labels import ASSETS


def digits(_, split: str, options: Options) -> Source:
    """1,797 handwritten digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits").

    Every fifth image is held out, whatever `val_fraction`.
    """
    check_divided(split, "'digits'")
    with np.load(ASSETS / "digits.npz") as file:
        images, labels = file["images"], file["labels"]
    held_out = np.arange(len(images)) % 5 == 0
    chosen = {"train": ~held_out, "val": held_out, "all": np.full(len(images), True)}[split]
    pixels = np.repeat(images[chosen][..., None] * (255 / 16), options.channels, axis=-1)
    images = tf.constant(pixels, tf.float32)
    labels = labels[chosen].astype(np.int64)
    return Source(tuple("0123456789"), labels, lambda index: images[index], encoded=False)
