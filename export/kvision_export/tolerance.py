"""Tolerances: the largest accepted differences between a file and the Keras model."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Tolerance of a file: every bound that is set, but not agreement where the score is bounded and known.

    Attributes:
        difference: largest difference of a probability.
        agreement: least share of images or pixels with the Keras model's first class.
        drop: most that the task's score may fall, as a share.
    """

    difference: float | None = None
    agreement: float | None = None
    drop: float | None = None

    def refusal(
        self,
        difference: float,
        agreement: float,
        drop: float | None,
        score: str = "top-1",
        differs: str = "a probability differs by",
    ) -> str:
        """The bounds that are exceeded, in words; "" where none is.

        Args:
            difference, agreement: see `Fidelity`.
            drop: drop of the score; None without labels.
            score: its name.
            differs: what the difference is.
        """
        if not np.isfinite(difference):
            return "the output contains NaN or infinity"
        if self.difference is not None and difference > self.difference:
            return f"{differs} {difference:.1g}, not {self.difference:g} at the most"
        if self.drop is None or drop is None:
            if self.agreement is not None and agreement < self.agreement:
                return f"it agrees on {100 * agreement:.1f} %, not {100 * self.agreement:g} % at the least"
        elif drop > self.drop:
            return f"{score} drops by {100 * drop:.2f} points, not {100 * self.drop:g} at the most"
        return ""
