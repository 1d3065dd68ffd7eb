"""Decoding images as Pillow does: by TensorFlow, where its pixels are Pillow's, else by Pillow itself."""

import io
import struct
from collections.abc import Iterator

import numpy as np
import PIL.ExifTags
import PIL.Image
import tensorflow as tf

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")  # none runs a program
EXIF_IN_PNG = (b"eXIf", b"iTXtXML:com.adobe.xmp", b"tEXtRaw profile type exif", b"zTXtRaw profile type exif")
UPRIGHT = 1  # the orientation of an image that is stored as it is seen
MIRRORED = [(False, False)] + 2 * [(False, False), (False, True), (True, True), (True, False)]  # see `axes`
LUMA = 19595, 38470, 7471  # ITU-R 601 in 65536ths, as Pillow has it


def decode(contents, channels, exif=True):
    """Decodes an image to the pixels that Pillow's `convert("RGB")` or `convert("L")` gives.

    Of an animation, the first frame; colours behind transparent pixels are kept and their alpha is dropped;
    colour profiles are not applied. Grey of 16 bits is scaled to 8, where Pillow would clip it.

    Args:
        contents: a scalar string tensor, a file in one of `FORMATS`.
        channels: 3, or 1 for grey.
        exif: whether the image is turned as its EXIF (or XMP) orientation says.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        tf.errors.OpError: the file fails to decode; `reason` says why.
    """
    return decode_examined(contents, channels, *examine(contents, channels, exif))


def decode_examined(contents, channels, orientation, pixels):
    """`decode`, of what `examine` returned."""

    def by_tensorflow():
        image = tf.cond(
            tf.io.is_jpeg(contents),
            lambda: decode_jpeg(contents),
            lambda: tf.io.decode_png(contents, 3),
        )
        return to_channels(image, channels)

    return turn(tf.cond(tf.size(pixels) == 0, by_tensorflow, lambda: pixels), orientation)


def decode_jpeg(contents, window=None, ratio=1):
    """uint8 `(height, width, 3)`: a JPEG, or of one shrunk by `ratio` what lies in `window`, not turned."""
    how = {"channels": 3, "ratio": ratio, "dct_method": "INTEGER_ACCURATE"}  # the fast one is a level off
    if window is None:
        return tf.io.decode_jpeg(contents, **how)
    return tf.io.decode_and_crop_jpeg(contents, window, **how)


def examine(contents, channels, exif):
    """What must be known before an encoded image is decoded.

    Args: those of `decode`.

    Returns:
        The orientation, a scalar int32 tensor from 1 to 8; and uint8 pixels `(height, width, channels)`, not
        turned, where Pillow decoded them, or none where TensorFlow's decoder of JPEG or PNG gives the same.
    """

    def look(contents):
        try:
            return _look(contents, channels, exif)
        except Exception as error:  # whatever a damaged file makes its reader raise
            raise tf.errors.InvalidArgumentError(None, None, _in_words(error)) from None

    if tf.executing_eagerly():  # where `numpy_function` takes the zeros from the end of what it passes
        return tuple(map(tf.constant, look(tf.convert_to_tensor(contents).numpy())))
    orientation, pixels = tf.numpy_function(look, [contents], (tf.int32, tf.uint8), stateful=False)
    return tf.ensure_shape(orientation, ()), tf.ensure_shape(pixels, (None, None, channels))


def axes(orientation) -> tuple:
    """How a stored image becomes the one that is seen.

    Returns:
        Whether rows and columns change places, a bool; and whether then top and bottom, and left and right,
        do so, bool `(2,)`.
    """
    return orientation >= 5, tf.gather(MIRRORED, orientation)


def turn(image, orientation):
    """An image `(height, width, channels)` as it is seen."""

    def turned():
        transposed, mirrored = axes(orientation)
        seen = tf.cond(transposed, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        return tf.raw_ops.Reverse(tensor=seen, dims=tf.concat([mirrored, [False]], 0))

    return tf.cond(orientation == UPRIGHT, lambda: image, turned)


def to_channels(image, channels):
    """uint8 RGB as uint8 of 3 channels or of 1, to the bit as Pillow converts it."""
    if channels == 3:
        return image
    red, green, blue = tf.split(tf.cast(image, tf.float32), 3, -1)  # exact: all sums are below 2**24
    return tf.cast((red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + 2**15) / 2**16, tf.uint8)


def reason(contents: bytes) -> str | None:
    """Why an encoded image fails to decode, in printable words; None where it does not."""
    try:
        decode(contents, 3)
        return None
    except tf.errors.OpError as error:
        message = error.message
    try:  # Pillow says more exactly what is wrong with a JPEG or PNG
        with _open(contents) as image:
            _pixels(image, 3)
    except Exception as error:
        message = _in_words(error)
    return message


def _in_words(error) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"its format is none of {', '.join(FORMATS)}"
    text = " ".join(str(error).split()) or type(error).__name__
    return repr(text[:120])[1:-1]


def _open(contents) -> PIL.Image.Image:
    """An image of which the header was read; one of more than 179 million pixels is an error."""
    if not contents:
        raise ValueError("the file is empty")
    return PIL.Image.open(io.BytesIO(contents), formats=FORMATS)


def _look(contents: bytes, channels, exif) -> tuple[np.int32, np.ndarray]:
    with _open(contents) as image:
        jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        png = image.format == "PNG" and not (exif and _exif_in_png(contents))
        pixels = np.zeros((0, 0, channels), np.uint8) if jpeg or png else _pixels(image, channels)
        return np.int32(UPRIGHT if png or not exif else _orientation(image)), pixels


def _pixels(image, channels) -> np.ndarray:
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels, of Pillow's mode {image.mode}, have no known range")
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], channels, -1)
    image.load()
    image.info.pop("transparency", None)  # of a palette, Pillow warns that it is dropped
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _orientation(image) -> int:
    try:
        found = image.getexif().get(PIL.ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # a damaged tag is none
        return UPRIGHT
    return found if isinstance(found, int) and found in range(1, 9) else UPRIGHT


def _exif_in_png(contents: bytes) -> bool:
    return any(chunk.startswith(EXIF_IN_PNG) for chunk in _png_chunks(contents))


def _png_chunks(contents: bytes) -> Iterator[bytes]:
    """The name of each chunk and its first bytes."""
    place = 8
    while place + 8 <= len(contents):
        (length,) = struct.unpack_from(">I", contents, place)
        yield contents[place + 4 : place + 8 + 32]
        place += 12 + length
