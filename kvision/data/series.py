"""Series of numbers, such as measurements, and their windows."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvision.errors import UserError
from kvision.names import counted, listed, say_once


@dataclass(frozen=True, eq=False)
class Series:
    """The series of a split, one behind the other.

    Attributes:
        columns: names of the features.
        values: float32 `(rows, features)`.
        starts: int64 `(series + 1,)`, where each begins.
        predicted: bool `(rows,)`, the rows that the split may predict.
        visible: bool `(rows,)`, those that it may see before them.
        mean, std: float32 `(features,)`, of the training's values; 1 in place of a standard deviation of 0.
        names: of the series, for messages.
    """

    columns: tuple[str, ...]
    values: np.ndarray
    starts: np.ndarray
    predicted: np.ndarray
    visible: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    names: Sequence[str]

    @property
    def ends(self) -> np.ndarray:
        """int64 `(rows,)`, the row behind the series that each row is in."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    @property
    def longest(self) -> int:
        """Number of rows of the longest series."""
        return int(np.diff(self.starts).max())

    def each(self) -> list[tuple[str, np.ndarray]]:
        """The series by their names, float32 `(rows, features)`."""
        return [*zip(self.names, np.split(self.values, self.starts[1:-1]), strict=True)]

    def targets(self, length: int) -> np.ndarray:
        """The rows behind windows of `length` rows of the same series.

        Returns:
            int64 `(windows,)`, ascending.

        Raises:
            UserError: a series has fewer than `length + 1` rows, or no row has `length` rows before it.
        """
        sizes = np.diff(self.starts)
        if len(short := np.flatnonzero(sizes <= length)):
            raise UserError(
                f"{self.names[short[0]]}: {length + 1} rows or more were expected, for a `length` of "
                f"{length} and the next; got {sizes[short[0]]}."
            )
        rows = np.arange(len(self.values))
        before = rows - length  # the first row of the window
        seen = np.concatenate([[0], np.cumsum(self.visible)])
        whole = before >= np.repeat(self.starts[:-1], sizes)
        whole[whole] = seen[rows[whole]] - seen[before[whole]] == length
        targets = np.flatnonzero(whole & self.predicted)
        if not len(targets):
            raise UserError(
                f"{self.names[0]}: no row of the split has {length} rows before it that the split may see: a "
                "smaller `length` was expected."
            )
        return targets

    def report(self, length: int) -> None:
        """Says on stderr how many series are longer than `length`."""
        sizes = np.diff(self.starts)
        if longer := int((sizes > length).sum()):
            of = f"{longer:,} of {counted(len(sizes), 'sequence')}"
            say_once(f"Cut {of} behind {length} rows; the longest has {sizes.max()}.")

    def with_columns(self, columns: Sequence[str], places: Sequence[int]) -> "Series":
        """The same series with a network's features, given the place of each of these among the network's.

        Raises:
            UserError: the network has others too.
        """
        if sorted(places) != list(range(len(columns))):
            lacking = [name for place, name in enumerate(columns) if place not in places]
            raise UserError(
                f"The series lack {counted(len(lacking), 'column')} of the network: {listed(lacking)}."
            )
        order = np.argsort(places)
        arrays = {name: getattr(self, name)[..., order] for name in ("values", "mean", "std")}
        return dataclasses.replace(self, columns=tuple(columns), **arrays)

    def digest(self) -> bytes:
        """Bytes that change when a column does, a series, or a value that the split predicts or sees."""
        digest = hashlib.sha256("\n".join(self.columns).encode())
        used = self.values[self.predicted | self.visible]
        for array, dtype in (
            (used, "<f4"),
            (self.starts, "<i8"),
            (self.predicted, "u1"),
            (self.visible, "u1"),
        ):
            digest.update(array.astype(dtype).tobytes())
        return digest.digest()


def statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and standard deviation of each column, as `Series` has them."""
    wide = values.astype(np.float64)
    mean, std = wide.mean(0).astype(np.float32), wide.std(0).astype(np.float32)
    return mean, np.where(std == 0, np.float32(1), std)
