"""CSV lists of images."""

import csv
import io
import os
from collections import defaultdict
from pathlib import PurePosixPath, PureWindowsPath

from kvision.data.sources.source import (
    NAMES_OF_SPLITS,
    Options,
    Source,
    check_divided,
    of_files,
    part,
    parts,
)
from kvision.errors import UserError
from kvision.names import quoted


def csv_list(path: str, split: str, options: Options) -> Source:
    """A CSV file with the columns `path` and `label`, and `split` (train, val or test) where it is given.

    Paths are relative to the file's folder and stay below it, unless `allow_outside`; a backslash separates
    as a slash does. Labels are names of classes; blanks around them do not count. A file that is listed
    again counts again, but has one label and one split.
    """
    rows = _rows(path)
    root = os.path.dirname(path)
    inside = _Inside(path, root, options.allow_outside)
    classes = sorted({row["label"] for row in rows})
    if rows and "split" in rows[0]:
        of_split = [row["split"] for row in rows]
        chosen = {*parts(split, set(of_split), repr(path))}
        selected = [row for row in rows if row["split"] in chosen]
    else:
        check_divided(split, repr(path))
        by_class = defaultdict(list)
        for row in rows:
            by_class[row["label"]].append(row)
        held_out = {id(row) for name in classes for row in part(by_class[name], "val", options.val_fraction)}
        for row in rows:
            row["split"] = "val" if id(row) in held_out else "train"
        selected = [row for name in classes for row in by_class[name] if split in ("all", row["split"])]
    _check_repeated(path, rows)
    if not selected:
        raise UserError(f"{path!r} lists no files for the split {split!r}; it has {len(rows)} rows.")
    label_of = {name: label for label, name in enumerate(classes)}
    paths = [inside.path(row) for row in selected]
    source = of_files(root or ".", classes, paths, [label_of[row["label"]] for row in selected])
    absent = [place for place, (size, _) in enumerate(source.files.stamps) if size < 0]
    if absent:
        first = selected[absent[0]]
        kind = "no regular file" if os.path.exists(paths[absent[0]]) else "absent"
        raise UserError(
            f"{len(absent)} of the {len(paths)} files that {path!r} lists are not there; the first is "
            f"{quoted(first['path'])}, row {first['row']}: {quoted(paths[absent[0]])} is {kind}."
        )
    return source


def _rows(path) -> list[dict]:
    """The rows of the file; `row` is the line on which each ends, from 1."""
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
    rows, columns = [], None
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if columns is None:
                columns = _columns(path, fields)
            else:
                rows.append(_row(path, columns, fields, reader.line_num))
    except csv.Error as error:
        raise UserError(
            f"{path!r}, row {reader.line_num}: {error}; is a quotation mark not closed?"
        ) from None
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


def _row(path, columns, fields, number) -> dict:
    where = f"{path!r}, row {number}"
    if len(fields) < len(columns) or any(fields[len(columns) :]):
        raise UserError(f"{where}: {len(columns)} fields were expected; got {len(fields)}: {quoted(fields)}.")
    row = dict(zip(columns, fields, strict=False)) | {"row": number}
    row["label"] = row["label"].strip()
    if not row["path"] or "\0" in row["path"] or not row["label"]:
        raise UserError(
            f"{where}: a path and a label were expected; got {quoted(row['path'])}, {quoted(row['label'])}."
        )
    if "split" in columns:
        name = row["split"]
        row["split"] = NAMES_OF_SPLITS.get(name.strip().casefold())
        if not row["split"]:
            raise UserError(f"{where}: `split` must be train, val or test; got {quoted(name)}.")
    return row


def _check_repeated(path, rows) -> None:
    first = {}
    for row in rows:
        other = first.setdefault(os.path.normpath(row["path"].replace("\\", "/")), row)
        for what in ("label", "split"):
            if other[what] != row[what]:
                raise UserError(
                    f"{path!r}, rows {other['row']} and {row['row']}: the same file has the {what} "
                    f"{quoted(other[what])} and {quoted(row[what])}: {quoted(row['path'])}."
                )


class _Inside:
    """Finds the files of rows, and refuses those outside the list's folder."""

    def __init__(self, csv_path, root, allow_outside):
        self.csv_path, self.root, self.allow_outside = csv_path, root, allow_outside
        self.real_root = os.path.join(os.path.realpath(root or "."), "")
        self.real_folders = {}  # real paths of the folders that were asked for

    def path(self, row) -> str:
        """The path of a row's file."""
        name = row["path"]
        if "\\" in name and not os.path.lexists(os.path.join(self.root, name)):
            if PureWindowsPath(name).drive:
                self._refuse(row, "a path of another system is not found here", False)
            name = name.replace("\\", "/")
        parts = PurePosixPath(name).parts
        path = os.path.join(self.root, *parts)
        if self.allow_outside:
            return path
        if ".." in parts or parts[0] == "/":
            self._refuse(row, "a path below the file's folder was expected", True)
        folder, file = os.path.split(path)
        if folder not in self.real_folders:
            self.real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(self.real_folders[folder], file)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(self.real_root):
            self._refuse(row, "a symbolic link leads outside the file's folder", True)
        return path

    def _refuse(self, row, why, helps):
        how = " --allow_outside takes it." if helps else ""
        raise UserError(f"{self.csv_path!r}, row {row['row']}: {why}; got {quoted(row['path'])}.{how}")
