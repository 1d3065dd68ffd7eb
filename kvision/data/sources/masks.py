"""Folders of images and of their masks."""

import os
from collections.abc import Mapping

from kvision import labels
from kvision.data.identity import trace
from kvision.data.masks import IGNORED, classes_in
from kvision.data.sources.folder import ClassFolders, LeftOut
from kvision.data.sources.source import (
    Options,
    Source,
    check_divided,
    of_files,
    part,
    parts,
    split_of,
)
from kvision.errors import UserError
from kvision.names import listed, quoted, say_once

CLASSES = "classes.txt"
FORMS = "'images' and 'masks', 'train/images' and 'train/masks', or 'images/train' and 'masks/train'"


def masks(path: str, split: str, options: Options) -> Source:
    """`PATH/images` and `PATH/masks`, with a PNG of class indices for each image, of the same name.

    Splits are `PATH/train/images` and `PATH/train/masks`, or `PATH/images/train` and `PATH/masks/train`. The
    names of the classes are the lines of `PATH/classes.txt`; without it they are numbers.
    """
    if not os.path.isdir(path):
        raise FileNotFoundError(f"There is no folder {path!r}.")
    left_out = LeftOut(path)
    folders = _folders(path, left_out)
    divided = "" in folders
    if divided:
        check_divided(split, repr(path))
        pairs = part(_pairs(*folders[""], left_out), split, options.val_fraction)
    else:
        used = parts(split, folders, repr(path))
        pairs = [pair for name in used for pair in _pairs(*folders[name], left_out)]
    left_out.say()
    if not pairs:
        raise UserError(f"{path!r} has no images for the split {split!r}.")
    images, paths = zip(*pairs, strict=True)
    return of_files(path, _class_names(path, folders), [*images], targets={"mask": [*paths]}, divided=divided)


def _folders(path, left_out) -> dict[str, tuple[str, str]]:
    """Folders of images and of masks by split; "" is the only key where there are no splits."""

    def splits(folder):
        """The names of the folders that are splits."""
        names: dict[str, str] = {}
        for name in ClassFolders(folder).names if os.path.isdir(folder) else []:
            if (split := split_of(name)) and names.setdefault(split, name) != name:
                raise UserError(
                    f"{folder!r} has several folders for the split {split!r}: {listed([names[split], name])}."
                )
        return names

    images, below = os.path.join(path, "images"), os.path.join(path, "masks")
    split_first = {
        split: (os.path.join(path, name, "images"), os.path.join(path, name, "masks"))
        for split, name in splits(path).items()
        if os.path.isdir(os.path.join(path, name, "images"))
    }
    split_last = {
        split: (os.path.join(images, name), os.path.join(below, name))
        for split, name in splits(images).items()
    }
    whole = {"": (images, below)} if os.path.isdir(images) else {}
    folders = split_first or split_last or whole
    if folders is split_last:
        inside, used = (
            ClassFolders(images),
            {os.path.basename(of_images) for of_images, _ in folders.values()},
        )
        left_out.add("beside the splits", inside.paths({*inside.names, *inside.others} - used))
    if not folders:
        raise UserError(f"{path!r} has no folders of images and masks: {FORMS} were expected.")
    for of_images, of_masks in folders.values():
        if not os.path.isdir(of_masks):
            raise UserError(f"There is no folder {of_masks!r} of the masks of {of_images!r}.")
    return folders


def _pairs(images, masks, left_out) -> list[tuple[str, str]]:
    """The paths of each image and its mask, sorted."""
    of_images, of_masks = (_by_stem(folder, left_out) for folder in (images, masks))
    for whose, what, other in ((of_images, "mask", of_masks), (of_masks, "image", of_images)):
        if alone := sorted(whose.keys() - other.keys()):
            many = f"; {len(alone)} files have none" if len(alone) > 1 else ""
            raise UserError(f"{whose[alone[0]]!r} has no {what} of the same name{many}.")
    return [(of_images[stem], of_masks[stem]) for stem in sorted(of_images)]


def _by_stem(folder, left_out) -> dict[str, str]:
    """The paths of the files in a folder, by their names without an ending."""
    paths = {}
    for path in ClassFolders(folder).all_files(left_out):
        other = paths.setdefault(os.path.splitext(os.path.relpath(path, folder))[0], path)
        if other != path:
            raise UserError(f"{other!r} and {path!r} differ in their endings alone: one was expected.")
    return paths


def _class_names(path, folders: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    file = os.path.join(path, CLASSES)
    if os.path.isfile(file):
        names = labels.read(file)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{file!r} has the class {quoted(twice)} more than once.")
        return names
    paths = [mask for pair in folders.values() for _, mask in _pairs(*pair, LeftOut(path))]

    def contents():
        for name in paths:
            with open(name, "rb") as mask:
                yield name, mask.read()

    values = classes_in(contents(), "\n".join(map(trace, paths)))
    if not values:
        raise UserError(f"{path!r} has no mask with a class.")
    if values[-1] == 0:
        raise UserError(
            f"{path!r} has masks with the class 0 alone: classes are numbered from 0 on, and pixels of "
            f"{IGNORED} are ignored."
        )
    if 2 * len(values) < values[-1] + 1:
        raise UserError(
            f"{path!r} has masks with the values {listed(values)} alone, which look like grey levels: number "
            f"the classes from 0 on, or name all {values[-1] + 1} in {file!r}, one a line."
        )
    say_once(
        f"There is no {file!r}, a name a line: the classes are the numbers 0 to {values[-1]}, the largest in "
        f"{len(paths)} masks."
    )
    return labels.numbers(values[-1] + 1)
