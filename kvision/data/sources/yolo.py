"""Text files of boxes beside images, as YOLO's and Ultralytics' tools write them."""

import dataclasses
import os
from collections.abc import Iterator

import yaml

from kvision.data.objects import Box, gather
from kvision.data.sources.folder import ClassFolders, LeftOut
from kvision.data.sources.inside import check_there
from kvision.data.sources.source import SPLITS, Options, Source, of_files, parts
from kvision.errors import UserError
from kvision.names import counted, listed, quoted, shown

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def yolo(path: str, split: str, options: Options) -> Source:
    """A YAML file with the folders of images as `train`, `val` and `test`, and with `names` of classes.

    A split may also be a text file that lists images, or several of both; they are relative to `path`, where
    that is given, and else to the file. The boxes of `images/a.jpg` are the lines of `labels/a.txt`, or of
    the text file beside the image where no folder is called "images": the class's number, then the centre's
    x and y, the width and the height as shares of the image's, or the points of a polygon. An image without
    a text file has no boxes.
    """
    content = _read(path)
    names, root = _names(path, content), _root(path, content)
    there = [name for name in SPLITS if content.get(name)]
    if not there:
        raise UserError(f"{path!r} has none of {listed(SPLITS)}, which are folders of images.")
    left_out = LeftOut(root)
    images = []
    for name in parts(split, there, repr(path)):
        given = content[name]
        for one in given if isinstance(given, list) else [given]:
            images += _images(path, root, name, one, left_out)
    images = [*dict.fromkeys(images)] if split == "all" else images  # which splits may share
    left_out.say()
    if not images:
        raise UserError(f"{path!r} has no images for the split {split!r}.")
    source = of_files(root, names, images)
    check_there(source, path)
    texts = [_text_of(image) for image in images]
    if not any(map(os.path.exists, texts)):
        raise UserError(
            f"{path!r}: none of the {counted(len(images), 'image')} of the split {split!r} has a text file "
            f"of boxes; the first expected is {texts[0]!r}."
        )
    boxes = [box for place, text in enumerate(texts) for box in _boxes(place, text)]
    places = {place: place for place in range(len(names))}
    objects = gather(boxes, places, len(images), lambda image: shown(texts[image]))
    return dataclasses.replace(source, objects=objects)


def _read(path) -> dict:
    with open(path, "rb") as file:
        try:
            content = yaml.safe_load(file)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{path!r} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path!r} must have the keys 'train', 'val' and 'names'; got {quoted(content)}.")
    return content


def _names(path, content) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[place] for place in range(len(names))]
    if (
        not isinstance(names, list)
        or not names
        or any(isinstance(name, bool) or not isinstance(name, str | int | float) for name in names)
    ):
        raise UserError(
            f"{path!r}: `names` must be a list of classes, or have the numbers from 0 on, with quotation "
            f"marks around YAML's yes, no and null; got {quoted(names)}."
        )
    names = list(map(str, names))
    if len({*names}) < len(names):
        raise UserError(f"{path!r}: `names` has a class more than once: {quoted(names)}.")
    if content.get("nc", len(names)) != len(names):
        raise UserError(f"{path!r}: `nc` is {quoted(content['nc'])} and `names` has {len(names)} classes.")
    return names


def _root(path, content) -> str:
    folder = os.path.dirname(path)
    root = os.path.join(folder, os.path.expanduser(str(content.get("path") or "")))
    return root if os.path.isdir(root) else folder or "."


def _images(path, root, name, given, left_out) -> list[str]:
    """The paths of the images in a folder or a list."""
    if not isinstance(given, str) or "\0" in given:
        raise UserError(f"{path!r}: `{name}` must be a folder of images; got {quoted(given)}.")
    given = given.replace("\\", "/")  # as Windows writes them
    forms = [given, given.removeprefix("../")]  # the second for files that tools export one folder too high
    place = next((p for form in forms if os.path.exists(p := os.path.join(root, form))), None)
    if place is None:
        raise UserError(
            f"{path!r}: `{name}` is {quoted(given)}, and there is no {os.path.join(root, given)!r}."
        )
    if os.path.isdir(place):
        files = ClassFolders(place).all_files(left_out)
        images = [file for file in files if file.lower().endswith(ENDINGS)]
        left_out.add("no images by their endings", {f for f in files if not f.endswith(".txt")} - {*images})
        return images
    with open(place, encoding="utf-8", errors="surrogateescape") as lines:
        listed_ones = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    return [os.path.normpath(os.path.join(os.path.dirname(place), image)) for image in listed_ones]


def _text_of(image) -> str:
    folder, name = os.path.split(os.path.splitext(image)[0])
    steps = folder.split(os.sep)
    if "images" in steps:
        steps[len(steps) - 1 - steps[::-1].index("images")] = "labels"
    return os.path.join(os.sep.join(steps), f"{name}.txt")


def _boxes(place, text) -> Iterator[Box]:
    try:
        with open(text, encoding="utf-8-sig", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        if not (fields := line.split()):
            continue
        try:
            label, *numbers = map(float, fields)
            if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
                raise ValueError
        except ValueError:
            raise UserError(
                f"{text!r}, line {number}: a class's number, and 4 numbers of a box or the points of a "
                f"polygon were expected; got {quoted(line)}."
            ) from None
        if len(numbers) == 4:
            x, y, width, height = numbers
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            across, down = numbers[::2], numbers[1::2]
            corners = (min(across), min(down), max(across), max(down))
        yield Box(place, corners, int(label) if label.is_integer() else label)
