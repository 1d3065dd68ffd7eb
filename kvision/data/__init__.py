"""Datasets as `tf.data` pipelines of pixels in [0, 255] and labels."""

from kvision.data.images import read_image, read_pixels
from kvision.data.load import Data, load
from kvision.data.skipped import read_errors

__all__ = ["Data", "load", "read_errors", "read_image", "read_pixels"]
