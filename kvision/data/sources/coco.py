"""The boxes of COCO: a JSON file of annotations and a folder of images."""

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kvision.data.objects import Box, gather
from kvision.data.sources.inside import Inside, check_there
from kvision.data.sources.source import Options, Source, check_divided, of_files, part, parts, split_of
from kvision.errors import UserError
from kvision.names import listed, quoted, shown

PAIR = re.compile(r"(.+\.json),(.+)", re.DOTALL)
ANNOTATIONS = "annotations"
PREFIXES = {"coco": "instances_", "captions": "captions_"}  # of its files, by the kind of dataset
BESIDE = "_annotations.coco.json"  # in the folder of its images, as Roboflow has it
KEYS = ("images", "annotations", "categories")


class Listed(NamedTuple):
    """Contents of a JSON file: names, ids and sizes of images, boxes, and class names by their ids."""

    file: str
    folder: str
    names: list[str]
    ids: list
    sizes: list[tuple[int, int]]
    boxes: list[Box]
    classes: dict[int, str]


def coco(path: str, split: str, options: Options) -> Source:
    """`FILE.json,FOLDER`, whose images are divided, or a folder as COCO lays it out.

    That has `annotations/instances_train2017.json` with its images in `train2017` or `images/train2017`, and
    so for "val"; any year will do, or none. Or `train/_annotations.coco.json` beside its images, and so for
    `valid` and `test`, as Roboflow lays it out. Classes are in the order of their ids; one without a box that
    is another's supercategory is none. Crowds are ignored; images without annotations have no boxes.
    """
    if pair := PAIR.fullmatch(path):
        check_divided(split, repr(path))
        used = [(pair[1], os.path.expanduser(pair[2]))]
    else:
        pairs = pairs_in(path, "coco")
        used = [pairs[name] for name in parts(split, pairs, repr(path))]
    lists = [_read(file, folder) for file, folder in used]
    for one in lists[1:]:
        if one.classes != lists[0].classes:
            raise UserError(f"{lists[0].file!r} and {one.file!r} have different categories.")
    paths, sizes, boxes, files = [], [], [], []
    for one in lists:
        inside = Inside(one.file, one.folder, options.allow_outside)
        boxes += [box._replace(image=box.image + len(paths)) for box in one.boxes]
        paths += [inside.paths(name, f"image {place + 1}")[0] for place, name in enumerate(one.names)]
        sizes += one.sizes
        files += [one.file] * len(one.names)
    if again := next((path for path, count in Counter(paths).items() if count > 1), None):
        raise UserError(f"{used[0][0]!r} lists {quoted(again)} as several images.")
    chosen = list(range(len(paths)))
    if pair:
        chosen = part(chosen, split, options.val_fraction)
    if not chosen:
        raise UserError(f"{path!r} lists no images for the split {split!r}.")
    class_names = [name for _, name in sorted(lists[0].classes.items())]
    root = lists[0].folder if len(lists) == 1 else os.path.commonpath([one.folder for one in lists])
    source = of_files(root, class_names, [paths[place] for place in chosen], divided=bool(pair))
    check_there(source, lists[0].file)
    new = dict(zip(chosen, range(len(chosen)), strict=True))
    objects = gather(
        [box._replace(image=new[box.image]) for box in boxes if box.image in new],
        {number: place for place, number in enumerate(sorted(lists[0].classes))},
        len(chosen),
        lambda image: shown(paths[chosen[image]]),
        [sizes[place] for place in chosen],
    )
    return dataclasses.replace(source, objects=objects)


def ids_of(file: str) -> tuple[dict, dict[str, int]]:
    """The ids of a JSON file's images by the last parts of their file names, and of its categories by name.

    Raises:
        UserError: it is not as COCO's instances are, or two images have the same file name.
    """
    content = _read(file, "")
    names = [os.path.basename(name) for name in content.names]
    if len({*names}) < len(names):
        raise UserError(f"{file!r} has several images with the same file name.")
    categories = {name: number for number, name in content.classes.items()}
    return dict(zip(names, content.ids, strict=True)), categories


def pairs_in(path: str, kind: str) -> dict[str, tuple[str, str]]:
    """The file of annotations and the folder of images of each split; `kind` is a key of `PREFIXES`."""
    folder, prefix = os.path.join(path, ANNOTATIONS), PREFIXES[kind]
    if not os.path.isdir(path):
        raise FileNotFoundError(f"There is no folder {path!r}; another form is {kind}:FILE.json,FOLDER.")
    pairs: dict[str, tuple[str, str]] = {}
    if not os.path.isdir(folder):
        for name in sorted(os.listdir(path)):
            images = os.path.join(path, name)
            if (split := split_of(name)) and os.path.isfile(file := os.path.join(images, BESIDE)):
                pairs[split] = file, images
        if pairs:
            return pairs
        raise UserError(
            f"{path!r} has no folder {ANNOTATIONS!r}, and no 'train/{BESIDE}'; another form is "
            f"{kind}:FILE.json,FOLDER."
        )
    for name in sorted(os.listdir(folder)):
        stem, ending = os.path.splitext(name)
        split = split_of(stem.removeprefix(prefix))
        if ending != ".json" or not stem.startswith(prefix) or not split:
            continue
        file, stem = os.path.join(folder, name), stem.removeprefix(prefix)
        places = [os.path.join(path, stem), os.path.join(path, "images", stem)]
        images = next((place for place in places if os.path.isdir(place)), None)
        if images is None:
            raise UserError(f"There is no folder of the images of {file!r}: {places[0]!r} was expected.")
        if split in pairs:
            raise UserError(
                f"{folder!r} has several files for the split {split!r}: "
                f"{listed([os.path.basename(pairs[split][0]), name])}."
            )
        pairs[split] = file, images
    if not pairs:
        raise UserError(f"{folder!r} has no '{prefix}train2017.json' or the like.")
    return pairs


class Lists:
    """The lists in a JSON file, of which each entry is looked at.

    Args:
        file: its path.
        keys: the lists that it must have.
        whose: what has such lists, for messages.
    """

    def __init__(self, file: str, keys: Sequence[str], whose: str):
        self.file = file
        with open(file, "rb") as content:
            try:
                self.lists = json.load(content)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file!r} is not JSON: {error}.") from None
        if not isinstance(self.lists, dict) or not all(isinstance(self.lists.get(key), list) for key in keys):
            got = listed(self.lists) if isinstance(self.lists, dict) else type(self.lists).__name__
            raise UserError(f"{file!r} must have the lists {listed(keys)}, as {whose} have; got {got}.")

    def each(self, key: str, form: str, fields: Sequence[str], convert: Callable) -> Iterator:
        """The entries of a list, each converted by `convert`; where it fails, `form` and `fields` say why."""
        for place, item in enumerate(self.lists[key]):
            try:
                yield convert(item)
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
                where = f"{self.file!r}, {key}, entry {place + 1}"
                got = quoted(item)
                if isinstance(item, dict):
                    got = ", ".join(f"{key} {quoted(item[key])}" for key in fields if key in item) or "none"
                raise UserError(f"{where}: {form} were expected; got {got}.") from None


def _read(file, folder) -> Listed:
    content = Lists(file, KEYS, "COCO's instances")
    each = content.each
    form, fields = "an 'id' and a 'name'", ("id", "name")
    categories = list(
        each("categories", form, fields, lambda item: (_whole(item["id"]), _text(item["name"])))
    )
    classes = dict(categories)
    if len(classes) < len(categories) or len({*classes.values()}) < len(classes):
        raise UserError(f"{file!r} has categories with the same id or name: {quoted(categories)}.")
    form = "an 'id', a 'file_name', a 'height' and a 'width'"
    images = list(each("images", form, ("id", "file_name", "height", "width"), _image))
    places = {number: place for place, (number, _, _) in enumerate(images)}
    if len(places) < len(images):
        raise UserError(f"{file!r} has several images with the same id.")
    form = (
        "an 'image_id' of the images, a 'category_id', a 'bbox' of 4 numbers and, where they are given, an "
        "'iscrowd' of 0 or 1 and an 'area'"
    )
    fields = ("image_id", "category_id", "bbox", "iscrowd", "area")
    boxes = list(each("annotations", form, fields, lambda item: _box(item, places)))
    names, sizes = [name for _, name, _ in images], [size for _, _, size in images]
    parents = {
        str(parent)
        for item in content.lists["categories"]
        if (parent := item.get("supercategory")) != item["name"]
    }
    used = {box.label for box in boxes}
    classes = {number: name for number, name in classes.items() if number in used or name not in parents}
    return Listed(file, folder, names, [*places], sizes, boxes, classes)


def _image(item: Mapping) -> tuple[object, str, tuple[int, int]]:
    name, size = item["file_name"], (_whole(item["height"]), _whole(item["width"]))
    if (
        not isinstance(item["id"], int | float | str)
        or not isinstance(name, str)
        or not name
        or "\0" in name
        or min(size) < 1
        or max(size) > np.iinfo("i4").max
    ):
        raise ValueError
    return item["id"], name, size


def _box(item: Mapping, places: Mapping) -> Box:
    bbox, crowd, area = item["bbox"], _whole(item.get("iscrowd") or 0), item.get("area")
    left, top, width, height = map(float, bbox)
    area = None if area is None else float(area)
    if isinstance(bbox, str) or crowd not in (0, 1) or not 0 <= (area or 0) < math.inf:
        raise ValueError
    corners = (left, top, left + width, top + height)
    return Box(places[item["image_id"]], corners, _whole(item["category_id"]), bool(crowd), area)


def _whole(value) -> int:
    """A whole number, also where it is written as a text or with a point."""
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError
    return number


def _text(value) -> str:
    """A name, also where it is written as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError
    return str(value)
