"""The segmentation masks, or the boxes, of PASCAL VOC."""

import dataclasses
import os
from xml.etree import ElementTree
from xml.parsers import expat

from kvision import labels
from kvision.data.objects import Box, Objects, gather
from kvision.data.sources.inside import check_there
from kvision.data.sources.source import SPLITS, Options, Source, check_divided, of_files, part, parts
from kvision.errors import UserError
from kvision.names import listed, quoted, shown

CLASSES = (  # Everingham et al., "The PASCAL Visual Object Classes Challenge 2012", in the order of the masks
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LISTS = {"mask": os.path.join("ImageSets", "Segmentation"), "boxes": os.path.join("ImageSets", "Main")}
FOLDERS = {"mask": "SegmentationClass", "boxes": "Annotations"}
NAMES = "classes.txt"
DIFFICULT = ("0", "1")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc(path: str, split: str, options: Options) -> Source:
    """`PATH/VOC2012`, or PATH itself, as the VOCdevkit has it.

    `ImageSets/Segmentation/train.txt` and `val.txt` are the splits, or `ImageSets/Main` for boxes; where
    there is `trainval.txt` alone, its images are divided. Boxes of other classes than VOC's need the names of
    all classes in `classes.txt` beside `ImageSets`, one a line. Difficult objects are ignored.
    """
    root, of_target = _root(path, options.target), LISTS[options.target]
    folder = os.path.join(root, of_target)
    lists = {name: os.path.join(folder, f"{name}.txt") for name in (*SPLITS, "trainval")}
    there = {name: file for name, file in lists.items() if os.path.isfile(file)}
    if not there:
        raise UserError(f"{folder!r} has none of train.txt, val.txt and trainval.txt.")
    divided = there.keys() == {"trainval"}
    if divided:
        check_divided(split, repr(path))
        names = part(_names(there["trainval"]), split, options.val_fraction)
    else:
        names = [name for used in parts(split, there, repr(path)) for name in _names(there[used])]
    if not names:
        raise UserError(f"{path!r} lists no images for the split {split!r}.")
    images = _images(os.path.join(root, "JPEGImages"), names)
    if options.target == "boxes":
        class_names = CLASSES[1:]
        if os.path.isfile(file := os.path.join(root, NAMES)):
            class_names = labels.read(file)
        source = of_files(root, class_names, images, divided=divided)
        check_there(source, folder)
        return dataclasses.replace(source, objects=_objects(root, names, class_names))
    masks = [os.path.join(root, "SegmentationClass", f"{name}.png") for name in names]
    source = of_files(root, CLASSES, images, targets={"mask": masks}, divided=divided)
    for what, files in (("image", images), ("mask", masks)):
        if absent := source.absent(what):
            raise UserError(
                f"{len(absent)} of the {len(names)} images that {folder!r} lists have no {what}; "
                f"the first is {quoted(files[absent[0]])}."
            )
    return source


def _root(path, target) -> str:
    """The folder of a year."""
    if not os.path.isdir(path):
        raise FileNotFoundError(f"There is no folder {path!r}.")
    lists = LISTS[target]
    if os.path.isdir(os.path.join(path, lists)):
        return path
    years = [year for year in sorted(os.listdir(path)) if os.path.isdir(os.path.join(path, year, lists))]
    if not years:
        raise UserError(
            f"{path!r} is not a VOCdevkit: 'JPEGImages', {FOLDERS[target]!r} and {lists!r} were expected."
        )
    if len(years) > 1:
        one = f"voc:{os.path.join(path, years[-1])}"
        raise UserError(f"{path!r} has several years, {listed(years)}: give one, such as {one!r}.")
    return os.path.join(path, years[0])


def _names(file) -> list[str]:
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        return [line.split()[0] for line in lines if line.strip()]


def _images(folder, names) -> list[str]:
    """The images of these names: VOC's are JPEG, those of other tools may have another ending."""
    files = os.listdir(folder) if os.path.isdir(folder) else []
    files.sort(key=lambda file: file.endswith(".jpg"))  # which count where there are both
    there = {os.path.splitext(file)[0]: file for file in files}
    return [os.path.join(folder, there.get(name, f"{name}.jpg")) for name in names]


def _objects(root, names, class_names) -> Objects:
    files = [os.path.join(root, FOLDERS["boxes"], f"{name}.xml") for name in names]
    boxes, sizes = [], []
    for image, file in enumerate(files):
        annotation = _xml(file)
        try:
            size = int(_text(annotation, "size/height")), int(_text(annotation, "size/width"))
            if not 0 < min(size) <= max(size) < 2**31:
                raise ValueError
            sizes.append(size)
            for found in annotation.iterfind("object"):
                left, top, right, bottom = (float(_text(found, f"bndbox/{side}")) for side in SIDES)
                corners = (left - 1, top - 1, right, bottom)  # stored ones count from 1, and include the last
                crowd = DIFFICULT.index(found.findtext("difficult", "0").strip())
                boxes.append(Box(image, corners, _text(found, "name").strip(), crowd == 1))
        except ValueError:
            raise UserError(
                f"{file!r} is not an annotation of VOC: a 'size' with a 'height' and 'width' above 0 was "
                f"expected, and in each 'object' a 'name' and a 'bndbox' with the numbers {listed(SIDES)}, "
                "and where it is given a 'difficult' of 0 or 1."
            ) from None
    places = {name: place for place, name in enumerate(class_names)}
    if boxes and not any(box.label in places for box in boxes):
        known = listed(sorted({str(box.label) for box in boxes}))
        raise UserError(
            f"{root!r} has objects of the classes {known}, and none of {listed(class_names)}: name all "
            f"classes in {os.path.join(root, NAMES)!r}, one a line."
        )
    return gather(boxes, places, len(names), lambda image: shown(files[image]), sizes)


def _text(element, path) -> str:
    found = element.findtext(path)
    if found is None:
        raise ValueError
    return found


def _xml(file) -> ElementTree.Element:
    """The root of an XML file without a document type, which alone could declare entities."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_):
        raise UserError(f"{file!r} declares a document type, which annotations of VOC lack.")

    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        with open(file, "rb") as content:
            parser.ParseFile(content)
    except FileNotFoundError:
        raise UserError(f"There is no {file!r}, the annotation of an image that is listed.") from None
    except (expat.ExpatError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file!r} is not XML: {error}.") from None
    return builder.close()
