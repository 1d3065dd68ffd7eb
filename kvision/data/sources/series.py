"""CSV files of series: a row for each time, a column for each feature."""

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from kvision.data.series import Series, statistics
from kvision.data.sources.csv_list import read_csv
from kvision.data.sources.source import UNLABELED, Options, Source, check_divided, part, parts, split_of
from kvision.errors import UserError
from kvision.names import listed, quoted, say_once

OTHERS = ("sequence", "set", "label")  # columns that are no features
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a file in its order: their lines, features, and what `OTHERS` say, "" without these."""

    path: str
    columns: tuple[str, ...]
    lines: list[int]
    values: np.ndarray
    sequences: list[str]
    sets: list[str]
    labels: list[str]


def series(path: str, split: str, options: Options) -> Source:
    """A CSV file whose header names the columns; those with numbers are the features.

    Rows with the same `sequence` in their order are a series; without this column the file is one. `set`
    (train, val or test) divides rows, or sequences where these have a `label` to be found. Without it, the
    last `val_fraction` of each series is held out, or sequences are, of each label a share. What is trained
    on is no row of another set, nor does it see one; in evaluation all rows before are seen.
    """
    table = _table(path, labeled=options.target == "sequence" and options.labeled)
    rows = defaultdict(list)  # of each sequence
    for row, name in enumerate(table.sequences):
        rows[name].append(row)
    if options.target == "sequence":
        return _labeled(table, [*rows.values()], split, options)
    return _predicted(table, [*rows.values()], split, options)


def _predicted(table, rows, split, options) -> Source:
    divided = not any(table.sets)
    sets = np.array(table.sets, object)
    if divided:
        check_divided(split, repr(table.path))
        for of_one in rows:
            first = len(of_one) - round(len(of_one) * options.val_fraction)  # that is held out
            sets[of_one] = ["train"] * first + ["val"] * (len(of_one) - first)
    used = parts(split, {*sets.tolist()}, repr(table.path))
    predicted = np.array([name in used for name in sets])
    return _source(table, rows, predicted, sets, split, class_names=table.columns, divided=divided)


def _labeled(table, rows, split, options) -> Source:
    if "" in table.sequences:
        raise UserError(
            f"{table.path!r} must have the column 'sequence', whose rows with the same name are a series; "
            f"its features are {listed(table.columns)}."
        )
    for what, values in (("label", table.labels), ("set", table.sets)):
        for of_one in rows:
            if other := [row for row in of_one if values[row] != values[of_one[0]]]:
                raise UserError(
                    f"{table.path!r}, row {table.lines[other[0]]}: the sequence "
                    f"{quoted(table.sequences[other[0]])} has the {what} {quoted(values[other[0]])} and, in "
                    f"row {table.lines[of_one[0]]}, {quoted(values[of_one[0]])}."
                )
    divided = not any(table.sets)
    of_row = [table.sets[of_one[0]] for of_one in rows]
    if divided:
        check_divided(split, repr(table.path))
        of_label = defaultdict(list)
        for place, of_one in enumerate(rows):
            of_label[table.labels[of_one[0]]].append(place)
        held_out = {
            place for places in of_label.values() for place in part(places, "val", options.val_fraction)
        }
        of_row = ["val" if place in held_out else "train" for place in range(len(rows))]
    used = parts(split, {*of_row}, repr(table.path))
    sets = np.empty(len(table.lines), object)
    for of_one, of_set in zip(rows, of_row, strict=True):
        sets[of_one] = of_set
    chosen = [of_one for of_one, of_set in zip(rows, of_row, strict=True) if of_set in used]
    class_names = sorted({*table.labels}) if options.labeled else [UNLABELED]
    labels = [class_names.index(table.labels[of_one[0]]) if options.labeled else 0 for of_one in chosen]
    everything = np.full(len(table.lines), True)
    return _source(
        table,
        chosen,
        everything,
        sets,
        split,
        class_names=class_names,
        labels=np.array(labels),
        divided=divided,
    )


def _source(table, rows, predicted, sets, split, *, class_names, labels=None, divided) -> Source:
    """The source of the series whose rows are given, in a table whose rows are of the `sets`."""
    training = sets == "train"
    mean, std = statistics(table.values[training] if training.any() else table.values)
    order = np.concatenate(rows).astype(np.int64)
    one = Series(
        table.columns,
        table.values[order],
        np.cumsum([0, *map(len, rows)]),
        predicted[order],
        training[order] if split == "train" else np.full(len(order), True),
        mean,
        std,
        [f"{table.path!r}, row {table.lines[of_one[0]]}" for of_one in rows],
    )
    count = int(one.predicted.sum())
    return Source(tuple(class_names), labels, None, encoded=False, series=one, count=count, divided=divided)


def _table(path, labeled) -> Table:
    columns: list[str] = []
    lines, rows = [], []
    for number, fields in read_csv(path):
        fields = [field.strip() for field in fields]
        if not columns:
            columns = fields
            twice = [name for name in columns if columns.count(name) > 1 or not name]
            if twice:
                raise UserError(
                    f"{path!r}, row {number}: a header with a name for each column, each once, was expected; "
                    f"got {quoted(columns)}."
                )
            if labeled and "label" not in columns:
                raise UserError(f"{path!r} must have the column 'label'; its columns are {listed(columns)}.")
            continue
        if len(fields) != len(columns):
            raise UserError(
                f"{path!r}, row {number}: {len(columns)} fields were expected, as in the header; got "
                f"{len(fields)}: {quoted(fields)}."
            )
        lines.append(number)
        rows.append(fields)
    if not rows:
        raise UserError(f"{path!r} has no rows behind a header: names of columns, and numbers were expected.")
    of_column = {name: [fields[place] for fields in rows] for place, name in enumerate(columns)}
    features = {name: [*map(_number, texts)] for name, texts in of_column.items() if name not in OTHERS}
    words = [name for name, numbers in features.items() if all(number is None for number in numbers)]
    if words and len(words) < len(features):
        say_once(f"{path!r}: columns without numbers are no features: {listed(words)}.")
    features = {name: numbers for name, numbers in features.items() if name not in words}
    if not features:
        raise UserError(
            f"{path!r} has no column of numbers beside {listed(OTHERS)}; got {listed(of_column)}."
        )
    for name, numbers in features.items():
        if None in numbers:
            row = numbers.index(None)
            raise UserError(
                f"{path!r}, row {lines[row]}: a number was expected in the column {quoted(name)}; got "
                f"{quoted(of_column[name][row])}."
            )
    others = {name: of_column.get(name, [""] * len(rows)) for name in OTHERS}
    if "set" in of_column:
        others["set"] = [split_of(name) or name for name in others["set"]]
        for line, name in zip(lines, others["set"], strict=True):
            if split_of(name) is None:
                raise UserError(
                    f"{path!r}, row {line}: the set must be train, val or test; got {quoted(name)}."
                )
    for name in ("sequence", "label") if labeled else ("sequence",):
        if name in of_column and "" in others[name]:
            line = lines[others[name].index("")]
            raise UserError(f"{path!r}, row {line}: the column {name!r} is empty.")
    values = np.array([*features.values()], np.float32).T
    return Table(
        path,
        tuple(features),
        lines,
        np.ascontiguousarray(values),
        others["sequence"],
        others["set"],
        others["label"],
    )


def _number(text) -> float | None:
    """A finite number that float32 holds; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= LARGEST else None
