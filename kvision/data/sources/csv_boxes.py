"""CSV lists of boxes with the columns of Google's AutoML Vision."""

import dataclasses
import os
from typing import NamedTuple

from kvision.data.objects import Box, gather
from kvision.data.sources.csv_list import read_csv
from kvision.data.sources.inside import Inside, check_there
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
from kvision.names import listed, quoted, shown

# https://cloud.google.com/vision/automl/object-detection/docs/csv-format
VERTICES = ("set", "path", "label", "x_min", "y_min", "x_max", "y_min", "x_max", "y_max", "x_min", "y_max")
CORNERS = ("set", "path", "label", "x_min", "y_min", "x_max", "y_max")
UNASSIGNED = "unassigned"
SETS = {"validate": "val", UNASSIGNED: UNASSIGNED}  # beside the usual names


class Row(NamedTuple):
    """A row of the file: the split, "" for none, the path, a label, "" for none, and the corners of a box."""

    number: int
    split: str
    path: str
    label: str
    corners: tuple[float, ...]


def csv_boxes(path: str, split: str, options: Options) -> Source:
    """A CSV file with a row for each box: `set,path,label,x_min,y_min,,,x_max,y_max,,`, or all four vertices.

    A row of 7 fields, `set,path,label,x_min,y_min,x_max,y_max`, will do as well. A first row may name the
    columns; then these 7 may have any order. Coordinates are shares of the image's width and height. The set
    is TRAIN, VALIDATION, TEST or UNASSIGNED; of images that are not assigned a share is held out as "val". A
    row with a path alone is an image without boxes. Paths are those of `csv_list`.
    """
    rows = _rows(path)
    root = os.path.dirname(path)
    inside = Inside(path, root, options.allow_outside)
    images: dict[str, str] = {}  # real paths, and the set
    for row in rows:
        _, real = inside.paths(row.path, f"row {row.number}")
        if images.setdefault(real, row.split) != row.split:
            raise UserError(
                f"{path!r}, row {row.number}: {quoted(row.path)} is in the sets {images[real]!r} and "
                f"{row.split!r}."
            )
    free = [real for real, of_set in images.items() if of_set == UNASSIGNED]
    divided = len(free) == len(images)
    if divided:
        check_divided(split, repr(path))
    held_out = {*part(free, "val", options.val_fraction)}
    split_of_image = {
        real: of_set if of_set != UNASSIGNED else "val" if real in held_out else "train"
        for real, of_set in images.items()
    }
    there = {*split_of_image.values()}
    chosen = {*parts(split, there, repr(path))} if there else set()
    paths, places, boxes = [], {}, []
    class_names = sorted({row.label for row in rows} - {""})
    for row in rows:
        file, real = inside.paths(row.path, f"row {row.number}")
        if split_of_image[real] not in chosen:
            continue
        if real not in places:
            places[real] = len(paths)
            paths.append(file)
        if row.label:
            boxes.append(Box(places[real], row.corners, row.label))
    if not paths or not class_names:
        raise UserError(f"{path!r} lists no {'boxes' if paths else 'images'} for the split {split!r}.")
    source = of_files(root or ".", class_names, paths, divided=divided)
    check_there(source, path)
    of_name = {name: place for place, name in enumerate(class_names)}
    objects = gather(boxes, of_name, len(paths), lambda image: shown(paths[image]))
    return dataclasses.replace(source, objects=objects)


def _rows(path) -> list[Row]:
    """The rows behind names of columns, where the first has these."""
    numbered = [(number, [field.strip() for field in fields]) for number, fields in read_csv(path)]
    names = [field.casefold() for field in numbered[0][1]] if numbered else []
    if VERTICES[0] not in names and not {*CORNERS[3:]} & {*names}:
        return [_row(path, number, fields) for number, fields in numbered]
    (number, header), *numbered = numbered
    if all(name in ("", own) for name, own in zip(names, VERTICES, strict=False)):
        return [_row(path, number, fields) for number, fields in numbered]
    if sorted(names) != sorted(CORNERS):
        raise UserError(
            f"{path!r}, row {number}: names of the columns {listed(CORNERS)}, in any order, were expected; "
            f"got {quoted(header)}."
        )
    rows = []
    for number, fields in numbered:
        if len(fields) != len(names):
            raise UserError(
                f"{path!r}, row {number}: {len(names)} fields were expected, as the first row names; got "
                f"{len(fields)}: {quoted(fields)}."
            )
        of_name = dict(zip(names, fields, strict=True))
        rows.append(_row(path, number, [of_name[name] for name in CORNERS]))
    return rows


def _row(path, number, fields) -> Row:
    where = f"{path!r}, row {number}"
    while len(fields) > len(VERTICES) and not fields[-1]:
        del fields[-1]
    if len(fields) not in (len(VERTICES), len(CORNERS)):
        raise UserError(
            f"{where}: 'set,path,label,x_min,y_min,,,x_max,y_max,,' was expected, 11 fields, or 7 without "
            f"the empty ones; got {len(fields)}: {quoted(fields)}."
        )
    of_set, name, label, *coordinates = fields
    known = SETS.get(of_set.casefold()) or split_of(of_set)
    if not known:
        raise UserError(f"{where}: TRAIN, VALIDATION, TEST or UNASSIGNED was expected; got {quoted(of_set)}.")
    if not name or "\0" in name:
        raise UserError(f"{where}: a path was expected; got {quoted(name)}.")
    if name.startswith("gs://"):
        raise UserError(
            f"{where}: a path of a file here was expected, relative to the list; got {quoted(name)}."
        )
    if not label and not any(coordinates):
        return Row(number, known, name, "", ())
    try:
        if not label:
            raise ValueError
        if len(fields) == len(CORNERS):
            return Row(number, known, name, label, tuple(map(float, coordinates)))
        across, down = ([float(x) for x in coordinates[axis::2] if x] for axis in range(2))
        if len(across) != len(down) or len(across) < 2 or not all(coordinates[:2]):
            raise ValueError
        corners = (across[0], down[0], across[len(across) // 2], down[len(down) // 2])
        return Row(number, known, name, label, corners)
    except ValueError:
        raise UserError(
            f"{where}: a label and the coordinates of a box were expected; got {quoted(fields[2:])}."
        ) from None
