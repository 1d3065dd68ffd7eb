"""Datasets of images with masks, written for tests."""

import io

import numpy as np
from PIL import Image

from kvision.data import read_errors
from kvision.data.masks import IGNORED

random = np.random.default_rng(0)
CLASS_MAP = random.integers(0, 4, (12, 20)).astype("uint8")
SPLITS = ("train", "val", "all")
HOW = {"image_size": (30, 40), "target": "mask"}


def encoded(image, form="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def palette(values, **options):
    """A palette PNG of class indices, in random colours."""
    image = Image.fromarray(values).convert("P")
    image.putpalette(random.integers(0, 256, 768, "uint8").tolist())
    image.putdata(values.ravel().tolist())
    return encoded(image, **options)


def write(root, count=10, classes=("sky", "tree", "house", "car"), exif=1, folders=("images", "masks")):
    """Writes images as bright as 50 times their masks, which are those of the turned images."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = np.random.default_rng(i).integers(0, 4, (3, 5)).repeat(10, 0).repeat(8, 1).astype("uint8")
        tags = Image.Exif()
        tags[0x0112] = exif
        stored = np.rot90(mask) if exif == 6 else mask
        pixels = np.repeat(50 * stored[..., None], 3, -1)
        Image.fromarray(pixels).save(root / folders[0] / f"{i}.jpg", quality=99, subsampling=0, exif=tags)
        (root / folders[1] / f"{i}.png").write_bytes(palette(mask))
    if classes:
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root


def read(data, count=30):
    """The first batches of a `kvision.data.Data`."""
    with read_errors([data]):
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(count), strict=False)]


def fits(batch):
    """Whether images are as bright as 50 times their masks, away from edges."""
    image, mask = batch["image"][..., 0], batch["mask"]
    return np.mean(np.abs(image - 50 * mask)[mask != IGNORED] < 3)
