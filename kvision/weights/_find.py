"""From what `weights=` was given to a row of the table."""

from collections.abc import Mapping

from kvision.errors import UserError
from kvision.spec import Variant, Weights, did_you_mean, select
from kvision.weights._fetch import ENDINGS, SCHEMES, describe, is_file, named
from kvision.weights._rows import ROWS

FREE = {  # columns that do not change what trained weights mean, or to which they are adapted
    "auxiliary", "drop_path_rate", "dropout_rate", "norm_momentum", "resolution_multiplier", "window_size",
}  # fmt: skip


def list_weights(pattern: str = "*") -> list[Weights]:
    """The published checkpoints whose MODEL.TAG matches a shell pattern or contains a word: `"resnet50*"`."""
    chosen = select(pattern, (f"{row.model}.{row.tag}" for row in ROWS))
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
        weights: "imagenet", a tag, or what `kvision.weights.load` takes.
        model: the builder's name; None for a network that is not in a table.
        variant: the network's row of its family's table, with the keywords that were given.
        default: the same without them.

    Returns:
        The row; for a repository that is not in the table, one made of what it says of itself; None for a
        mapping or a file.

    Raises:
        ValueError: there are no such weights, or they need other columns: the message says which.
    """
    if isinstance(weights, Mapping):
        return None
    word = weights.tag if isinstance(weights, Weights) else named(weights)
    if is_file(word):
        return None
    rows = matching(weights, model)
    needed = [_differing(row, variant, default) for row in rows]
    if {} in needed:
        return rows[needed.index({})]
    if rows:
        keywords = " or ".join(
            ", ".join(f"{key}={value!r}" for key, value in columns.items()) for columns in needed
        )
        raise UserError(f"`weights={word!r}` of {model} need {keywords}.")
    rows, whose = rows_of(model or ""), model or "This network"
    if word == "imagenet":
        there = ", ".join(
            f"{row.tag!r} ({row.license or 'licence not stated'}, {row.num_classes} classes)" for row in rows
        )
        raise UserError(
            f"{whose} has no ImageNet weights under a permissive licence; there are {there or 'none at all'}."
        )
    raise UserError(
        f"{whose} has no weights {word!r}. {did_you_mean(word, ['imagenet', *(row.tag for row in rows)])} "
        f"A file ends with {', '.join(ENDINGS)}, a repository begins with hf-hub:."
    )


def _differing(row: Weights, variant: Variant, default: Variant) -> dict:
    """The columns in which a network differs from what the row was trained with, and their trained values."""
    if row.columns is None:
        return {}
    trained = {column: getattr(default, column) for column in variant.columns() if column not in FREE}
    trained |= row.columns
    return {key: value for key, value in trained.items() if getattr(variant, key) != value}
