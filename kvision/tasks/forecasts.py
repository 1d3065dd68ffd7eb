"""Forecasts of several windows of series."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Forecasts:
    """The next values that a network finds for some windows.

    Attributes:
        values: float32 `(windows, features)`.
        last: the last values of the windows, of the same shape, which persistence forecasts again.
    """

    values: np.ndarray
    last: np.ndarray

    def of(self, images) -> "Forecasts":
        """See `Answers.of`."""
        return Forecasts(self.values[images], self.last[images])

    def at(self, image: int) -> tuple:
        """See `Answers.at`: the values alone."""
        return (self.values[image],)
