"""Decoding images as Pillow does: by TensorFlow, where its pixels are Pillow's, else by Pillow itself."""

import io
import re
import warnings

import numpy as np
import PIL.ExifTags
import PIL.Image
import tensorflow as tf

from kvision.names import plain, shown

PIL.Image.init()
FORMATS = tuple(  # none runs a program; AVIF comes with Pillow 11.3
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
    if name in PIL.Image.OPEN
)
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)  # below `MOST_PIXELS`
MAYBE_TURNED = rb"(?s)\C*(Exif\x00|eXIf|tiff:Orientation|Raw profile type exif|XML:com\.adobe\.xmp)\C*"
PNG = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # which Pillow does not need
MOST_PIXELS = 2**29 // 3  # Pillow's limit for what may be a decompression bomb
BY_PILLOW = 0  # in place of an orientation from 1 to 8
UPRIGHT = 1  # the orientation of an image that is stored as it is seen
MIRRORED = [(False, False)] + 2 * [(False, False), (False, True), (True, True), (True, False)]  # see `axes`
LUMA = 19595, 38470, 7471  # ITU-R 601 in 65536ths, as Pillow has it


def decode(contents, channels, exif=True):
    """Decodes an image to the pixels that Pillow's `convert("RGB")` or `convert("L")` gives.

    An animation gives its first frame; colours behind transparent pixels are kept and their alpha is dropped;
    colour profiles are not applied. Grey of 16 bits is scaled to 8, where Pillow would clip it.

    Args:
        contents: a scalar string tensor, a file in one of `FORMATS`.
        channels: 3, or 1 for grey.
        exif: whether the image is turned as its EXIF (or XMP) orientation says.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: the file fails to decode; `reason` says why.
    """
    return decode_examined(contents, channels, exif, orientation_of(contents, exif))


def decode_examined(contents, channels, exif, orientation):
    """`decode`, after `orientation_of`."""

    def by_tensorflow():
        image = tf.cond(
            tf.io.is_jpeg(contents),
            lambda: decode_jpeg(contents),
            lambda: tf.io.decode_png(contents, 3),
        )
        return turn(to_channels(image, channels), orientation)

    def by_pillow():
        pixels = called(lambda contents: pixels_in(contents, channels, exif), contents, tf.uint8)
        return tf.ensure_shape(pixels, (None, None, channels))

    return tf.cond(orientation == BY_PILLOW, by_pillow, by_tensorflow)


def decode_jpeg(contents, window=None, ratio=1):
    """uint8 `(height, width, 3)`: a JPEG, or of one shrunk by `ratio` what lies in `window`, not turned."""
    how = {"channels": 3, "ratio": ratio, "dct_method": "INTEGER_ACCURATE"}  # the fast one is a level off
    if window is None:
        return tf.io.decode_jpeg(contents, **how)
    return tf.io.decode_and_crop_jpeg(contents, window, **how)


def orientation_of(contents, exif):
    """Orientation of an image that TensorFlow decodes, an int32 from 1 to 8; `BY_PILLOW` for the others.

    Most images are told apart here, without Python.
    """

    def within_limit(sides):
        return tf.reduce_prod(tf.cast(sides, tf.int64)) <= MOST_PIXELS

    def plain_jpeg():
        shape = tf.io.extract_jpeg_shape(contents)
        return within_limit(shape[:2]) & (shape[2] < 4)  # not of inks

    def plain_png():
        whole = (
            tf.strings.substr(contents, tf.strings.length(contents) - len(PNG_END), len(PNG_END)) == PNG_END
        )
        sides = tf.strings.substr(contents, 16, 8)
        return whole & within_limit(tf.io.decode_raw(sides, tf.int32, little_endian=False))

    def plain_other():
        return tf.cond(tf.strings.substr(contents, 0, 8) == PNG, plain_png, lambda: False)

    plain = tf.cond(tf.io.is_jpeg(contents), plain_jpeg, plain_other)
    if exif:
        plain &= ~tf.strings.regex_full_match(contents, MAYBE_TURNED)
    return tf.cond(
        plain,
        lambda: tf.constant(UPRIGHT),
        lambda: tf.ensure_shape(called(lambda contents: _look(contents, exif), contents, tf.int32), ()),
    )


def axes(orientation) -> tuple:
    """The axes to swap and to reverse so that a stored image becomes the one that is seen.

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
    """Reason why an encoded image fails to decode, in printable words; None where it does not."""
    channels = 3
    try:
        for channels in (3, 1):
            decode(contents, channels)
        return None
    except tf.errors.OpError:
        pass
    try:  # Pillow says more exactly what is wrong
        pixels_in(contents, channels, exif=False)
    except Exception as error:
        return in_words(error)
    return "its data is damaged"


def called(function, contents, dtype):
    """Calls a function of bytes; its exceptions, which follow from the file, become `tf.errors.OpError`."""

    def call(contents):
        try:
            return function(contents), b""
        except Exception as error:  # whatever a damaged file makes its reader raise
            return np.zeros((), dtype.as_numpy_dtype), in_words(error).encode()

    if tf.executing_eagerly():  # where `numpy_function` takes the zeros from the end of what it passes
        value, fault = call(tf.convert_to_tensor(contents).numpy())
        if fault:
            raise tf.errors.InvalidArgumentError(None, None, fault.decode())
        return tf.constant(value)
    value, fault = tf.numpy_function(call, [contents], (dtype, tf.string), stateful=False)
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(fault, b""), [fault])]):
        return tf.identity(value)  # an exception in `call` would be logged with its traceback


def in_words(error) -> str:
    """Reason why a reader failed, in printable words."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"its format is none of {', '.join(FORMATS)}"
    if isinstance(error, PIL.Image.DecompressionBombError):
        pixels = re.findall(r"\d+", str(error))
        return f"its {int(pixels[0]):,} pixels exceed the limit of {MOST_PIXELS:,}"
    return shown((plain(str(error)) or type(error).__name__)[:120])


def open_image(contents: bytes) -> PIL.Image.Image:
    """An image of which the header was read; one of more than `MOST_PIXELS` is an error."""
    if not contents:
        raise ValueError("the file is empty")
    return PIL.Image.open(io.BytesIO(contents), formats=FORMATS)


def _look(contents: bytes, exif) -> np.int32:
    with open_image(contents) as image:
        jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        return np.int32((_orientation(image) if exif else UPRIGHT) if jpeg else BY_PILLOW)


def pixels_in(contents: bytes, channels, exif=True) -> np.ndarray:
    """`decode` by Pillow alone."""
    with open_image(contents) as image:
        pixels = pixels_of(image, channels)
        orientation = _orientation(image) if exif else UPRIGHT
    pixels = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    rows, columns = (-1 if mirrored else 1 for mirrored in MIRRORED[orientation])
    return np.ascontiguousarray(pixels[::rows, ::columns])


def pixels_of(image: PIL.Image.Image, channels) -> np.ndarray:
    """The pixels of one of Pillow's images as they are stored, see `decode`."""
    image.load()
    image.info.pop("transparency", None)  # of a palette, Pillow warns that it is dropped
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels, of Pillow's mode {image.mode}, have no known range")
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], channels, -1)
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _orientation(image) -> int:
    try:
        found = image.getexif().get(PIL.ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # a damaged tag is none
        return UPRIGHT
    return found if isinstance(found, int) and found in range(1, 9) else UPRIGHT
