"""Datasets of four images with boxes, written for tests, and what must be read of them."""

import numpy as np
from masks import read
from PIL import Image

from kvision.data import load
from kvision.data.sources import open_source

SIZE = (40, 80)  # height and width
BOXES = [  # of the images a, b, c and d: xyxy in pixels, a class and whether it is ignored
    [((8, 4, 24, 20), "dog", False), ((40, 10, 80, 40), "cat", True)],
    [],
    [((0, 0, 80, 40), "cat", False)],
    [((16, 8, 32, 12), "cow", False)],
]


def write_images(folder, names="abcd", ending="jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE[::-1], (90, 90, 90)).save(folder / f"{name}.{ending}")


def check(data, split="all", order="abcd", classes=("cat", "cow", "dog"), crowds=True, **keywords):
    """Reads a split, whose images are those of `order`, and compares their boxes."""
    how = {"image_size": SIZE, "target": "boxes", "own_size": True, "batch_size": 8, **keywords}
    opened = load(data, split, **how)
    assert opened.class_names == tuple(classes)
    [batch] = read(opened)
    images = zip(batch["boxes"], batch["classes"], batch["crowd"], strict=True)
    compare(images, order, classes, crowds)
    return batch


def check_list(data, split, order, classes=("cat", "cow", "dog"), crowds=True):
    """Compares the boxes of a split, without its images."""
    source = open_source(data, split, target="boxes")
    assert source.class_names == tuple(classes)
    objects, ends = source.objects, source.objects.starts[1:-1]
    boxes = objects.boxes * (1 if objects.sizes is not None else [SIZE[1], SIZE[0]] * 2)
    images = zip(*(np.split(part, ends) for part in (boxes, objects.classes, objects.crowd)), strict=True)
    compare(images, order, classes, crowds)


def compare(images, order, classes, crowds):
    """Asserts that the boxes, classes and crowds of images, which may be filled up, are those of `order`."""
    seen = [
        [
            (tuple(box.round(3).tolist()), classes[label], bool(crowd))
            for box, label, crowd in zip(*of_image, strict=True)
            if label >= 0
        ]
        for of_image in images
    ]
    expected = [BOXES["abcd".index(name)] for name in order]
    assert seen == [
        [(box, label, crowd and crowds) for box, label, crowd in of_image] for of_image in expected
    ]


def shares(box):
    """A box as shares of the sides of its image."""
    left, top, right, bottom = np.divide(box, [*SIZE[::-1]] * 2).tolist()
    return left, top, right, bottom
