"""The segmentation masks of PASCAL VOC."""

import os

from kvision.data.sources.source import SPLITS, Options, Source, check_divided, of_files, part, parts
from kvision.errors import UserError
from kvision.names import listed, quoted

CLASSES = (  # Everingham et al., "The PASCAL Visual Object Classes Challenge 2012", in the order of the masks
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LISTS = os.path.join("ImageSets", "Segmentation")


def voc(path: str, split: str, options: Options) -> Source:
    """`PATH/VOC2012`, or PATH itself, as the VOCdevkit has it.

    `ImageSets/Segmentation/train.txt` and `val.txt` are the splits; where there is `trainval.txt` alone, its
    images are divided.
    """
    root = _root(path)
    lists = {name: os.path.join(root, LISTS, f"{name}.txt") for name in (*SPLITS, "trainval")}
    there = {name: file for name, file in lists.items() if os.path.isfile(file)}
    if not there:
        raise UserError(f"{os.path.join(root, LISTS)!r} has none of train.txt, val.txt and trainval.txt.")
    divided = there.keys() == {"trainval"}
    if divided:
        check_divided(split, repr(path))
        names = part(_names(there["trainval"]), split, options.val_fraction)
    else:
        names = [name for used in parts(split, there, repr(path)) for name in _names(there[used])]
    if not names:
        raise UserError(f"{path!r} lists no images for the split {split!r}.")
    images = [os.path.join(root, "JPEGImages", f"{name}.jpg") for name in names]
    masks = [os.path.join(root, "SegmentationClass", f"{name}.png") for name in names]
    source = of_files(root, CLASSES, images, targets={"mask": masks}, divided=divided)
    for what, files in (("image", images), ("mask", masks)):
        if absent := source.absent(what):
            raise UserError(
                f"{len(absent)} of the {len(names)} images that {os.path.join(root, LISTS)!r} lists have no "
                f"{what}; the first is {quoted(files[absent[0]])}."
            )
    return source


def _root(path) -> str:
    """The folder of a year."""
    if not os.path.isdir(path):
        raise FileNotFoundError(f"There is no folder {path!r}.")
    if os.path.isdir(os.path.join(path, LISTS)):
        return path
    years = [year for year in sorted(os.listdir(path)) if os.path.isdir(os.path.join(path, year, LISTS))]
    if not years:
        raise UserError(
            f"{path!r} is not a VOCdevkit: 'JPEGImages', 'SegmentationClass' and {LISTS!r} were expected."
        )
    if len(years) > 1:
        one = f"voc:{os.path.join(path, years[-1])}"
        raise UserError(f"{path!r} has several years, {listed(years)}: give one, such as {one!r}.")
    return os.path.join(path, years[0])


def _names(file) -> list[str]:
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        return [line.split()[0] for line in lines if line.strip()]
