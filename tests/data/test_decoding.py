"""Decoded images, beside Pillow's."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from helpers import COMMANDS, mostly_slow
from PIL import Image, ImageOps, features

from kvision.data import load, read_image
from kvision.data.decoding import decode, open_image, reason
from kvision.data.images import random_crop
from kvision.errors import UserError

random = np.random.default_rng(0)
PHOTOGRAPH = Image.fromarray(random.integers(0, 256, (6, 9, 3), "uint8")).resize((90, 61), Image.BICUBIC)
GREY, PALETTE, BITS = PHOTOGRAPH.convert("L"), PHOTOGRAPH.quantize(60), PHOTOGRAPH.convert("1")
INK, OTHER = PHOTOGRAPH.convert("CMYK"), ImageOps.mirror(PHOTOGRAPH)
CLEAR = PHOTOGRAPH.copy()
CLEAR.putalpha(Image.linear_gradient("L").resize(CLEAR.size))


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(rows, bits, colour, *chunks):
    """A PNG of which Pillow does not write the kind; `rows` are bytes `(height, bytes of a row)`."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = rows.shape[0], rows.shape[1] * 8 // (bits * {0: 1, 2: 3, 4: 2, 6: 4}[colour])
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), *chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IDAT", data), (b"IEND", b"")])


def run_lengths(bits):
    """A BMP of 4 x 2 pixels in runs of equal ones."""
    palette = bytes([0, 0, 0, 0, 10, 20, 250, 0, 30, 240, 40, 0, 250, 60, 70, 0])
    colours = (1, 2, 3) if bits == 8 else (0x11, 0x22, 0x33)
    data = bytes([4, colours[0], 0, 0, 2, colours[1], 2, colours[2], 0, 0, 0, 1])
    compression = {8: 1, 4: 2}[bits]
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, bits, compression, len(data), 0, 0, 4, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


DEEP = random.integers(0, 256, (20, 240), "uint8")
FILES = {
    "JPEG": encoded(PHOTOGRAPH, "JPEG"),
    "JPEG 4:4:4": encoded(PHOTOGRAPH, "JPEG", subsampling=0, quality=98),
    "JPEG 4:2:2": encoded(PHOTOGRAPH, "JPEG", subsampling=1),
    "progressive JPEG": encoded(PHOTOGRAPH, "JPEG", progressive=True),
    "grey JPEG": encoded(GREY, "JPEG"),
    "RGB JPEG": encoded(PHOTOGRAPH, "JPEG", keep_rgb=True),
    "CMYK JPEG": encoded(INK, "JPEG"),  # Pillow writes Adobe's marker and inverts
    "CMYK JPEG not inverted": encoded(INK, "JPEG").replace(b"\xff\xee\0\x0eAdobe", b"\xff\xe5\0\x0eOther"),
    "several pictures in a JPEG": encoded(PHOTOGRAPH, "MPO", save_all=True, append_images=[OTHER]),
    "PNG": encoded(PHOTOGRAPH, "PNG"),
    "grey PNG": encoded(GREY, "PNG"),
    "grey PNG with a clear level": encoded(GREY, "PNG", transparency=10),
    "PNG with alpha": encoded(CLEAR, "PNG"),
    "grey PNG with alpha": encoded(CLEAR.convert("LA"), "PNG"),
    "PNG with a clear colour": encoded(PHOTOGRAPH, "PNG", transparency=(0, 0, 0)),
    "palette PNG": encoded(PALETTE, "PNG"),
    "palette PNG with a clear colour": encoded(PALETTE, "PNG", transparency=3),
    "palette PNG with alpha": encoded(PALETTE, "PNG", transparency=bytes(range(60))),
    "palette PNG of 4 bits": encoded(PHOTOGRAPH.quantize(9), "PNG", bits=4),
    "PNG of 1 bit": encoded(BITS, "PNG"),
    "PNG of 16 bits": png(DEEP, 16, 2),
    "PNG of 16 bits with alpha": png(DEEP, 16, 6),
    "PNG with a gamma": png(DEEP, 8, 2, (b"gAMA", struct.pack(">I", 100_000))),
    "animated PNG": encoded(PHOTOGRAPH, "PNG", save_all=True, append_images=[OTHER]),
    "BMP": encoded(PHOTOGRAPH, "BMP"),
    "grey BMP": encoded(GREY, "BMP"),
    "palette BMP": encoded(PALETTE, "BMP"),
    "BMP of 1 bit": encoded(BITS, "BMP"),
    "BMP with alpha": encoded(CLEAR, "BMP"),
    "BMP in runs": run_lengths(8),
    "BMP in runs of 4 bits": run_lengths(4),
    "GIF": encoded(PALETTE, "GIF"),
    "GIF with a clear colour": encoded(PALETTE, "GIF", transparency=2),
    "animated GIF": encoded(PALETTE, "GIF", save_all=True, append_images=[OTHER.quantize(60)]),
    "WebP": encoded(PHOTOGRAPH, "WEBP"),
    "WebP without loss": encoded(PHOTOGRAPH, "WEBP", lossless=True),
    "WebP with alpha": encoded(CLEAR, "WEBP"),
    "animated WebP": encoded(CLEAR, "WEBP", save_all=True, append_images=[OTHER.convert("RGBA")]),
    "TIFF": encoded(PHOTOGRAPH, "TIFF", compression="tiff_lzw"),
    "CMYK TIFF": encoded(INK, "TIFF"),
    "TIFF with alpha": encoded(CLEAR, "TIFF"),
    "PPM": encoded(PHOTOGRAPH, "PPM"),
    "JPEG 2000": encoded(PHOTOGRAPH, "JPEG2000"),
}  # fmt: skip
if features.check("avif"):  # Pillow 11.3 and later
    FILES["AVIF"] = encoded(PHOTOGRAPH, "AVIF")


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow, beside us
def test_pixels_are_pillows(channels, mode):
    in_graph = tf.function(lambda contents: decode(contents, channels))
    for kind, contents in FILES.items():
        with Image.open(io.BytesIO(contents)) as image:
            expected = np.asarray(image.convert(mode)).reshape(*image.size[::-1], channels)
        assert expected.std() > 1, kind
        for decoder in (decode, lambda contents, _: in_graph(contents)):
            pixels = decoder(tf.constant(contents), channels)
            np.testing.assert_array_equal(pixels, expected, err_msg=kind)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled(form):
    """Pillow clips it to white."""
    levels = np.arange(0, 65536, 97, "uint16").reshape(26, 26)
    for channels in (1, 3):
        pixels = decode(tf.constant(encoded(Image.fromarray(levels), form)), channels)
        np.testing.assert_array_equal(pixels, np.repeat((levels // 256)[..., None], channels, -1))


def claiming(size, form):
    """A small image whose header claims that it is `size` pixels wide and high."""
    contents = bytearray(encoded(BITS, form))
    if form == "BMP":
        contents[18:26] = struct.pack("<2i", size, size)
    else:
        contents[16:24] = struct.pack(">2I", size, size)
        contents[29:33] = struct.pack(">I", zlib.crc32(contents[12:29]))
    return bytes(contents)


def cut(kind, share):
    return FILES[kind][: round(len(FILES[kind]) * share)]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "the file is empty"),
        (b"no image", "its format is none of JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "its format is none of"),  # a program
        (encoded(GREY.convert("F"), "TIFF"), "no known range"),
        (claiming(14_000, "PNG"), "pixels exceed the limit"),
        (claiming(14_000, "BMP"), "pixels exceed the limit"),
        (FILES["grey JPEG"].replace(b"\x08\0\x3d\0\x5a\1", b"\x08\xff\xff\xff\xff\1"), "exceed the limit"),
        *((cut(kind, share), "") for share in (0.1, 0.6)
          for kind in ("JPEG", "progressive JPEG", "CMYK JPEG", "PNG", "BMP", "TIFF", "GIF", "WebP", "AVIF")
          if kind in FILES),
    ],
)  # fmt: skip
def test_what_fails_to_decode_says_why(contents, words, tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(contents), 3)
    assert words in reason(contents)
    assert 5 < len(reason(contents)) < 150
    assert reason(contents).isprintable()
    (tmp_path / "bad").write_bytes(contents)
    with pytest.raises(ValueError, match="bad' failed to decode: "):
        read_image(tmp_path / "bad", (8, 8))


@pytest.mark.parametrize("kind", ["PNG", "palette PNG", "grey PNG", "PNG with alpha"])
def test_a_png_without_its_last_bytes_is_what_it_is_to_pillow(kind):
    """It needs neither the end nor the last checksum, 16 bytes in all."""
    whole = decode(tf.constant(FILES[kind]), 3)
    for missing in (1, 4, 11, 12, 16):
        contents = FILES[kind][:-missing]
        with Image.open(io.BytesIO(contents)) as image:
            np.testing.assert_array_equal(image.convert("RGB"), whole)
        np.testing.assert_array_equal(decode(tf.constant(contents), 3), whole)
        assert reason(contents) is None
    np.testing.assert_array_equal(decode(tf.constant(FILES[kind] + b"more"), 3), whole)


def open_one_that_is_large(messages):
    os.dup2(os.open(messages, os.O_WRONLY | os.O_CREAT), 2)
    open_image(claiming(10_000, "PNG"))  # over half of the limit, where Pillow warns


def test_pillows_words_on_large_images_reach_nobody(tmp_path):
    process = COMMANDS.Process(target=open_one_that_is_large, args=(tmp_path / "messages",))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "attack" not in (tmp_path / "messages").read_text()
    assert "attack" not in reason(claiming(14_000, "PNG"))


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match="(pipe|zero)' is a pipe, socket or device: an image file was"):
            read_image(path, (8, 8))
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path, (8, 8))


def turned(orientation, form, image=PHOTOGRAPH, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, form, exif=exif, **options)


ORIENTED = {
    "JPEG": lambda o: turned(o, "JPEG", quality=98),
    "CMYK JPEG": lambda o: turned(o, "JPEG", INK),
    "PNG": lambda o: turned(o, "PNG"),
    "WebP": lambda o: turned(o, "WEBP", lossless=True),
    "TIFF": lambda o: turned(o, "TIFF"),
    "JPEG with XMP": lambda o: encoded(
        PHOTOGRAPH, "JPEG", xmp=f'<x><y tiff:Orientation="{o}"/></x>'.encode()
    ),
}


@pytest.mark.parametrize("kind", ORIENTED)
def test_images_are_turned_as_their_exif_says(kind, tmp_path):
    for orientation in range(1, 9):
        contents = ORIENTED[kind](orientation)
        with Image.open(io.BytesIO(contents)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert expected.shape[:2] == ((61, 90) if orientation < 5 else (90, 61))
        np.testing.assert_array_equal(decode(tf.constant(contents), 3), expected)
        if kind != "TIFF":  # Pillow itself turns it
            with Image.open(io.BytesIO(contents)) as image:
                np.testing.assert_array_equal(
                    decode(tf.constant(contents), 3, exif=False), image.convert("RGB")
                )


@pytest.mark.parametrize("exif", mostly_slow([True, False], True))
def test_datasets_turn_images_or_do_not(tmp_path, exif):
    """Training cuts boxes of JPEGs as they are stored; all is read as if the file held the turned pixels."""
    for kind in ("turned", "upright"):
        (tmp_path / kind / "a").mkdir(parents=True)
    for orientation in range(1, 9):
        name = f"a/{orientation}.jpg"
        stored = turned(orientation, "JPEG", PHOTOGRAPH.resize((96, 64)), quality=98, subsampling=0)
        (tmp_path / "turned" / name).write_bytes(stored)
        with Image.open(io.BytesIO(stored)) as image:
            image = ImageOps.exif_transpose(image) if exif else image
            upright = encoded(image, "JPEG", quality=98, subsampling=0, exif=Image.Exif())
        (tmp_path / "upright" / name).write_bytes(upright)
    for augment, cache in (("none", "none"), ("crop", "none"), ("crop", "ram")):
        how = {"training": augment != "none", "augment": augment, "cache": cache, "seed": 3, "exif": exif}
        images = [
            next(load(f"folder:{tmp_path / kind}", "train", image_size=(60, 50), batch_size=6,
                      val_fraction=0.2, **how).dataset.as_numpy_iterator())["image"]
            for kind in ("turned", "upright")
        ]  # fmt: skip
        assert np.abs(images[0] - images[1]).mean() < 0.5  # a JPEG of a JPEG
    path = tmp_path / "turned" / "a" / "6.jpg"
    pixels = read_image(path, (24, 20), exif=exif)
    assert np.abs(pixels - read_image(tmp_path / "upright" / "a" / "6.jpg", (24, 20))).mean() < 0.5


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow
def test_damaged_exif_turns_nothing():
    contents = turned(6, "JPEG")
    place = contents.index(b"Exif\0\0") + 6
    for damaged in (b"\0" * 8, b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08"):
        changed = contents[:place] + damaged + contents[place + 8 :]
        assert decode(tf.constant(changed), 3).shape in ((61, 90, 3), (90, 61, 3))
    assert decode(tf.constant(turned(9, "JPEG")), 3).shape == (61, 90, 3)


@pytest.mark.parametrize("size", [(40, 40), (50, 30), (100, 90), (230, 210)])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_boxes_of_shrunk_jpegs_are_those_of_the_whole_picture(size, orientation):
    """Each pixel says where it lies: across in red, down in green."""
    rows, columns = np.mgrid[:517, :803]
    picture = np.stack([columns * 255 / 803, rows * 255 / 517, np.full(rows.shape, 128.0)], -1)
    contents = turned(orientation, "JPEG", Image.fromarray(picture.round().astype("uint8")), quality=99,
                      subsampling=0)  # fmt: skip
    pixels = decode(tf.constant(contents), 3)
    offsets = []  # in pixels of the output
    for seed in range(12):
        how = {"min_area": 0.3, "channels": 3, "seed": (seed, 1)}
        box, expected = (
            random_crop(image, size, **how)[..., :2] for image in (tf.constant(contents), pixels)
        )
        slopes = np.ptp(expected, (0, 1)) / (size if orientation > 4 else size[::-1])
        offsets.append(np.mean(box - expected, (0, 1)) / slopes)
    assert np.abs(offsets).max() < 0.6
    assert np.abs(np.mean(offsets, 0)).max() < 0.3  # on no side
