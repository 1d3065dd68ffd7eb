"""The row of the table that `weights=` names."""

import logging
from collections.abc import Iterable, Mapping

from kvision.errors import UserError
from kvision.spec import Variant, Weights, did_you_mean, select
from kvision.weights._fetch import ENDINGS, SCHEMES, describe, is_file, named
from kvision.weights._rows import ROWS

LOG = logging.getLogger("kvision")
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause")


def list_weights(pattern: str = "*") -> list[Weights]:
    """The published checkpoints of a network, or those whose MODEL.TAG matches a pattern or contains a word.

    Raises:
        ValueError: no MODEL.TAG contains the word; the message has the nearest ones.
    """
    if of_model := rows_of(pattern):
        return [*of_model]
    chosen = select(pattern, (f"{row.model}.{row.tag}" for row in ROWS), "weights")
    return [row for row in ROWS if f"{row.model}.{row.tag}" in chosen]


def rows_of(model: str) -> tuple[Weights, ...]:
    """The published checkpoints of a network."""
    return tuple(row for row in ROWS if row.model == model)


def matching(weights, model: str | None) -> list[Weights]:
    """The rows of a network that `weights=` may mean: a tag may have several, of different columns."""
    if isinstance(weights, Weights):
        return [weights]
    word = named(weights)
    rows = [
        row
        for row in rows_of(model or "")
        if word in (row.tag, row.source) or (word == "imagenet" and row.default)
    ]
    return [describe(word, model)] if not rows and word.startswith(SCHEMES) else rows


def find(weights, model: str | None, variant: Variant, default: Variant) -> Weights | None:
    """The row that `weights=` names.

    Args:
        weights: "imagenet", a tag, or what `kvision.weights.load` takes. For other columns than the table's,
            "imagenet" is the most accurate row that has them; a better one that differs only in columns
            without influence on the weights' shapes is logged.
        model: the builder's name; None for a network that is not in a table.
        variant: the network's row of its family's table, with the keywords that were given.
        default: the same without them.

    Returns:
        The row; for a repository that is not in the table, one made from its config.json; None for a
        mapping or a file.

    Raises:
        ValueError: there are no such weights, or they need other columns: the message says which.
    """
    if isinstance(weights, Mapping):
        return None
    word = weights.tag if isinstance(weights, Weights) else named(weights)
    if is_file(word):
        return None
    rows, others = _candidates(weights, model, default)
    if row := _first_that_fits([*rows, *others], variant, default):
        _log_better(row, others, variant, default)
        return row
    needed = [_differing(row, variant, default) for row in rows]
    if rows:
        keywords = " or ".join(map(_keywords, needed))
        raise UserError(f"`weights={word!r}` of {model} needs the keywords {keywords}.")
    rows, whose = rows_of(model or ""), model or "This network"
    if word == "imagenet":
        there = ", ".join(
            f"{row.tag!r} ({row.license or 'license not stated'}, {row.num_classes} classes)" for row in rows
        )
        raise UserError(
            f"{whose} has no ImageNet weights under a permissive license; there are {there or 'none at all'}."
        )
    raise UserError(
        f"{whose} has no weights {word!r}. {did_you_mean(word, ['imagenet', *(row.tag for row in rows)])} "
        f"A file ends with {', '.join(ENDINGS)}, a repository begins with hf-hub:."
    )


def fitting_row(weights, model: str, variant: Variant, default: Variant) -> Weights | None:
    """As `find`, without a log; None also where it raises a UserError."""
    rows, others = _candidates(weights, model, default)
    return _first_that_fits([*rows, *others], variant, default)


def _candidates(weights, model: str | None, default: Variant) -> tuple[list[Weights], list[Weights]]:
    """The rows of a word, and those that "imagenet" may mean for other columns."""
    others = _others(rows_of(model or ""), default) if named(weights) == "imagenet" else []
    return matching(weights, model), others


def _first_that_fits(rows: Iterable[Weights], variant: Variant, default: Variant) -> Weights | None:
    return next((row for row in rows if not _differing(row, variant, default)), None)


def _others(rows: Iterable[Weights], default: Variant) -> list[Weights]:
    """ImageNet's rows under a permissive license: those of the network's image size first, then the best."""
    good = [row for row in rows if row.license in PERMISSIVE and row.num_classes == 1000 and row.top1]
    return sorted(good, key=lambda row: (_of_size(row, default), row.top1), reverse=True)


def _of_size(row: Weights, default: Variant) -> bool:
    return default.input_size in (row.input_size, row.test_size)


def _log_better(row: Weights, others: list[Weights], variant: Variant, default: Variant) -> None:
    """Says which row is more accurate on the network's image size, and which columns it needs."""
    for better in others:
        needed = _differing(better, variant, default)
        if (
            needed
            and needed.keys() <= variant.marked("same_shapes")
            and _of_size(better, default)
            and (better.top1 or 0) > (row.top1 or 0)
        ):
            LOG.warning(
                "%s: `weights='imagenet'` are %s; %s need %s.",
                row.model, _described(row), _described(better), _keywords(needed),
            )  # fmt: skip
            return


def _described(row: Weights) -> str:
    return f"{row.tag!r} ({row.top1} % top-1, {row.license or 'license not stated'})"


def _keywords(columns: dict) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in columns.items())


def _differing(row: Weights, variant: Variant, default: Variant) -> dict:
    """The columns in which a network differs from what the row was trained with, and their trained values."""
    if row.columns is None:
        return {}
    free = variant.marked("free")
    trained = {column: getattr(default, column) for column in variant.columns() if column not in free}
    trained |= row.columns
    return {key: value for key, value in trained.items() if getattr(variant, key) != value}
