"""Captions of several images."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Captions:
    """The captions that a network finds for some images.

    Attributes:
        tokens: int32 `(images, length)`, see `kvision.sequence.greedy`.
    """

    tokens: np.ndarray

    def of(self, images) -> "Captions":
        """See `Answers.of`."""
        return Captions(self.tokens[images])

    def at(self, image: int) -> tuple:
        """See `Answers.at`: the tokens alone."""
        return (self.tokens[image],)
