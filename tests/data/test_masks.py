"""Decoding of masks to class indices."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from masks import CLASS_MAP, encoded, palette
from PIL import Image

from kvision.data.masks import IGNORED, decode_mask, reason


def grey(values, bits):
    """A PNG of fewer bits than Pillow writes."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = values.shape
    ones = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    rows = np.pad(np.packbits(ones, axis=1), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


LARGE = np.where(CLASS_MAP == 3, IGNORED, CLASS_MAP).astype("uint8")
FILES = {
    "8 bits": (encoded(Image.fromarray(LARGE)), LARGE),
    "palette": (palette(LARGE), LARGE),
    "palette with a clear colour": (palette(LARGE, transparency=2), LARGE),
    "palette of 4 bits": (palette(CLASS_MAP, bits=4), CLASS_MAP),
    "palette of 1 bit": (palette(CLASS_MAP // 2, bits=1), CLASS_MAP // 2),
    "16 bits": (encoded(Image.fromarray(CLASS_MAP.astype("uint16") * 300)), CLASS_MAP.astype(int) * 300),
    "1 bit": (encoded(Image.fromarray(CLASS_MAP > 1)), CLASS_MAP > 1),
    **{f"{bits} bits": (grey(CLASS_MAP, bits), CLASS_MAP) for bits in (2, 4)},
}


@pytest.mark.parametrize("kind", FILES)
def test_masks_are_class_indices(kind):
    contents, expected = FILES[kind]
    for decoder in (decode_mask, tf.function(decode_mask)):
        mask = decoder(tf.constant(contents))
        assert mask.dtype == tf.int32
        np.testing.assert_array_equal(mask, expected)
    assert reason(contents) is None


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "the file is empty"),
        (FILES["8 bits"][0][:50], ""),
        (FILES["palette"][0][:-60], ""),
        (FILES["8 bits"][0][:60] + b"damaged" + FILES["8 bits"][0][67:], ""),
    ],
)
def test_damaged_masks_say_why(contents, words):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_mask(tf.constant(contents))
    assert words in reason(contents)
    assert reason(contents).isprintable()
