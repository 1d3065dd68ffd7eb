"""CSV lists of images."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from kvision.data.sources.inside import Inside
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
from kvision.names import quoted, say_once

SEPARATOR = "|"  # of the labels of an image


def csv_list(path: str, split: str, options: Options) -> Source:
    """A CSV file with the columns `path` and `label`, and `split` (train, val or test) where it is given.

    Paths are relative to the file's folder and stay below it, unless `allow_outside`; a backslash separates
    as a slash does. Labels are names of classes; blanks around them do not count. Where an image may have
    several, they are separated by "|", each counts once, and an empty label is none of them. A file that is
    listed again counts again, but has one label, or the same ones, and one split.
    """
    rows = _rows(path, options.several)
    root = os.path.dirname(path)
    inside = Inside(path, root, options.allow_outside)
    for row in rows:
        row["found"], row["file"] = inside.paths(row["path"], f"row {row['row']}")
    classes = sorted({name for row in rows for name in row["labels"]})
    if not options.several and (joined := [name for name in classes if SEPARATOR in name]):
        say_once(
            f"{path!r} has labels such as {quoted(joined[0])}, each of which is one class: a training with "
            f"--task=multilabel takes them as several, separated by {SEPARATOR!r}."
        )
    divided = "split" not in rows[0] if rows else True
    if not divided:
        of_split = [row["split"] for row in rows]
        chosen = {*parts(split, set(of_split), repr(path))}
        selected = [row for row in rows if row["split"] in chosen]
    else:
        check_divided(split, repr(path))
        groups = defaultdict(list)  # of the files of each class a share is held out, or else of all
        for row in rows:
            groups["" if options.several else row["labels"]].append(row)
        files = [list(dict.fromkeys(row["file"] for row in group)) for group in groups.values()]
        held_out = {file for group in files for file in part(group, "val", options.val_fraction)}
        for row in rows:
            row["split"] = "val" if row["file"] in held_out else "train"
        selected = [row for key in sorted(groups) for row in groups[key] if split in ("all", row["split"])]
    _check_repeated(path, rows)
    if not selected:
        raise UserError(f"{path!r} lists no files for the split {split!r}; it has {len(rows)} rows.")
    place_of = {name: place for place, name in enumerate(classes)}
    places = [[place_of[name] for name in row["labels"]] for row in selected]
    if not options.several:
        labels = [place for [place] in places]
    else:
        labels = np.zeros((len(selected), len(classes)), np.uint8)
        for of_image, there in zip(labels, places, strict=True):
            of_image[there] = 1
    paths = [row["found"] for row in selected]
    source = of_files(root or ".", classes, paths, labels, divided=divided)
    if absent := source.absent("image"):
        first = selected[absent[0]]
        kind = "no regular file" if os.path.exists(paths[absent[0]]) else "absent"
        raise UserError(
            f"{len(absent)} of the {len(paths)} files that {path!r} lists for the split {split!r} are not "
            f"there; the first is {quoted(first['path'])}, row {first['row']}: "
            f"{quoted(paths[absent[0]])} is {kind}."
        )
    return source


def read_csv(path: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file that are not blank, and the line on which each ends, from 1.

    Raises:
        UserError: it is not UTF-8, or a quotation mark is not closed.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        form = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        line = 1 + content.count(b"\n", 0, error.start)
        raise UserError(
            f"{path!r} must be UTF-8; it is in {form}: line {line} has the byte {content[error.start]:#04x}."
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(
            f"{path!r}, row {reader.line_num}: {error}; is a quotation mark not closed?"
        ) from None


def _rows(path, several) -> list[dict]:
    """The rows of the file; `labels` has the names in `label`, `row` the line on which each ends, from 1."""
    rows, columns = [], None
    for number, fields in read_csv(path):
        if columns is None:
            columns = _columns(path, fields)
        else:
            rows.append(_row(path, columns, fields, number, several))
    if columns is None:
        raise UserError(f"{path!r} is empty: the columns 'path' and 'label' were expected.")
    return rows


def _columns(path, fields) -> list[str]:
    columns = [field.strip() for field in fields]
    if not {"path", "label"} <= set(columns) or len(set(columns)) < len(columns):
        other = next((mark for mark in ";\t|" if mark in fields[0]), None)
        marks = f" Fields are separated by ',', not by {other!r}." if len(fields) == 1 and other else ""
        raise UserError(
            f"{path!r} must have the columns 'path' and 'label', each once; its first line is "
            f"{quoted(columns)}.{marks}"
        )
    return columns


def _row(path, columns, fields, number, several) -> dict:
    where = f"{path!r}, row {number}"
    if len(fields) < len(columns) or any(fields[len(columns) :]):
        raise UserError(f"{where}: {len(columns)} fields were expected; got {len(fields)}: {quoted(fields)}.")
    row = dict(zip(columns, fields, strict=False)) | {"row": number}
    row["label"] = label = row["label"].strip()
    names = [name.strip() for name in label.split(SEPARATOR)] if several and label else [label]
    row["labels"] = tuple(sorted({*names} if label else ()))
    if not row["path"] or "\0" in row["path"] or not (label or several):
        raise UserError(
            f"{where}: a path and a label were expected; got {quoted(row['path'])}, {quoted(label)}."
        )
    if not all(row["labels"]):
        raise UserError(
            f"{where}: labels with {SEPARATOR!r} between them, or none at all, were expected; got "
            f"{quoted(label)}, where one is empty."
        )
    if "split" in columns:
        name = row["split"]
        row["split"] = split_of(name.strip())
        if not row["split"]:
            raise UserError(f"{where}: the split must be train, val or test; got {quoted(name)}.")
    return row


def _check_repeated(path, rows) -> None:
    first = {}
    for row in rows:
        other = first.setdefault(row["file"], row)
        for what, key in (("label", "labels"), ("split", "split")):
            if other[key] != row[key]:
                raise UserError(
                    f"{path!r}, rows {other['row']} and {row['row']}: the same file has the {what} "
                    f"{quoted(other[what])} and {quoted(row[what])}: {quoted(row['path'])}."
                )
