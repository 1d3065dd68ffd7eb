"""Sentences about images: COCO's captions and CSV lists."""

import dataclasses
import os
from collections.abc import Mapping
from typing import NamedTuple

from kvision.data.captions import Captions
from kvision.data.sources.coco import PAIR, Lists, pairs_in
from kvision.data.sources.csv_list import read_csv
from kvision.data.sources.inside import Inside, check_there
from kvision.data.sources.source import Options, Source, check_divided, of_files, part, parts, split_of
from kvision.errors import UserError
from kvision.names import counted, listed, quoted, say_once
from kvision.vocabulary import Vocabulary, words_of

KEYS = ("images", "annotations")
COLUMNS = ("path", "text")


class Described(NamedTuple):
    """An image: its path, its real path, its split, "" for none, and its captions."""

    path: str
    real: str
    split: str
    texts: list[str]


def captions(path: str, split: str, options: Options) -> Source:
    """`FILE.json,FOLDER`, a folder as COCO lays it out, or a CSV file; class names are the vocabulary's.

    The folder has `annotations/captions_train2017.json` with its images in `train2017` or
    `images/train2017`, and so for "val". The CSV file has the columns `path` and `text`, a row for each
    caption, and `set` (train, val or test) where it is given; paths are those of `csv_list`. Without splits,
    images are divided. The vocabulary is that of the captions to train on, or of all where there are none;
    images without captions are left out.
    """
    if path.lower().endswith(".csv"):
        root, images = os.path.dirname(path), _in_csv(path, options)
    elif pair := PAIR.fullmatch(path):
        root = os.path.expanduser(pair[2])
        images = _in_json(pair[1], root, "", options)
    else:
        pairs = pairs_in(path, "captions")
        parts(split, pairs, repr(path))  # before files are read
        root = path
        images = [image for name, files in pairs.items() for image in _in_json(*files, name, options)]
    divided = not any(image.split for image in images)
    if divided:
        check_divided(split, repr(path))
        chosen, training = (part(images, name, options.val_fraction) for name in (split, "train"))
    else:
        used = parts(split, {image.split for image in images}, repr(path))
        chosen = [image for name in used for image in images if image.split == name]
        training = [image for image in images if image.split == "train"] or images
    if not chosen:
        raise UserError(f"{path!r} lists no images for the split {split!r}.")
    vocabulary = Vocabulary.of_texts(
        (text for image in training for text in image.texts), options.min_word_count, options.max_words
    )
    source = of_files(root or ".", vocabulary.names, [image.path for image in chosen], divided=divided)
    check_there(source, path)
    return dataclasses.replace(source, captions=Captions([image.texts for image in chosen], vocabulary))


def _in_csv(path, options) -> list[Described]:
    images: dict[str, Described] = {}
    inside, columns = Inside(path, os.path.dirname(path), options.allow_outside), None
    for number, fields in read_csv(path):
        where = f"{path!r}, row {number}"
        if columns is None:
            columns = [field.strip() for field in fields]
            if not {*COLUMNS} <= {*columns} or len({*columns}) < len(columns):
                raise UserError(
                    f"{path!r} must have the columns {listed(COLUMNS)}, each once; its first line is "
                    f"{quoted(columns)}."
                )
            continue
        if len(fields) != len(columns):
            raise UserError(
                f"{where}: {len(columns)} fields were expected; got {len(fields)}: {quoted(fields)}. A text "
                "with a comma stands between quotation marks."
            )
        row = dict(zip(columns, fields, strict=True))
        if not row["path"] or "\0" in row["path"] or not words_of(row["text"]):
            raise UserError(
                f"{where}: a path and a text with words were expected; got {quoted(row['path'])}, "
                f"{quoted(row['text'])}."
            )
        of_set = split_of(row["set"].strip()) if "set" in columns else ""
        if of_set is None:
            raise UserError(f"{where}: the set must be train, val or test; got {quoted(row['set'])}.")
        file, real = inside.paths(row["path"], f"row {number}")
        image = images.setdefault(real, Described(file, real, of_set, []))
        if image.split != of_set:
            raise UserError(f"{where}: {quoted(row['path'])} is in the sets {image.split!r} and {of_set!r}.")
        image.texts.append(row["text"])
    return [*images.values()]


def _in_json(file, folder, split, options) -> list[Described]:
    content = Lists(file, KEYS, "COCO's captions")
    inside, images, reals = Inside(file, folder, options.allow_outside), {}, set()
    form = "an 'id' and a 'file_name'"
    for place, (key, name) in enumerate(content.each("images", form, ("id", "file_name"), _image)):
        described = Described(*inside.paths(name, f"image {place + 1}"), split, [])
        if key in images or described.real in reals:
            raise UserError(f"{file!r} has several images with the id {key!r} or the file {quoted(name)}.")
        images[key] = described
        reals.add(described.real)

    def caption(item: Mapping):
        image, text = images[item["image_id"]], item["caption"]
        if not words_of(text):
            raise ValueError
        return image, text

    form = "an 'image_id' of the images and a 'caption' with words"
    for image, text in content.each("annotations", form, ("image_id", "caption"), caption):
        image.texts.append(text)
    if silent := [image.path for image in images.values() if not image.texts]:
        say_once(
            f"Left out {counted(len(silent), 'image')} of {file!r} without a caption: {listed(silent, 3)}."
        )
    return [image for image in images.values() if image.texts]


def _image(item: Mapping) -> tuple[object, str]:
    key, name = item["id"], item["file_name"]
    if not isinstance(key, int | str) or not isinstance(name, str) or not name or "\0" in name:
        raise ValueError
    return key, name
