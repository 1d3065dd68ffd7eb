"""Detections of several images, in arrays of one size."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

DETECTIONS = ("boxes", "scores", "classes", "count")


@dataclass(frozen=True)
class Detections:
    """Detections of a network on some images, the best of each first.

    Attributes:
        boxes: float32 `(images, most, 4)`, xyxy in pixels of the network's input.
        scores: float32 `(images, most)`.
        classes: int32 `(images, most)`.
        count: int32 `(images,)`, how many an image has.
        size: `(height, width)` of the network's input.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    count: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of_outputs(cls, outputs: Iterable[Mapping[str, np.ndarray]], size: tuple[int, int]) -> "Detections":
        """The detections that a file, or the network of `Detection.exported`, gives for each image."""
        rows = list(outputs)
        parts = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return cls(
            parts["boxes"][..., [1, 0, 3, 2]] * np.array(size[::-1] * 2, np.float32),
            parts["scores"],
            parts["classes"].astype(np.int32),
            parts["number"].astype(np.int32),
            size,
        )

    def of(self, images) -> "Detections":
        """See `Answers.of`."""
        parts = {name: getattr(self, name)[images] for name in DETECTIONS}
        return dataclasses.replace(self, **parts)

    def at(self, image: int) -> tuple:
        """See `Answers.at`: a dict of boxes, scores and classes."""
        return ({name: getattr(self, name)[image][: self.count[image]] for name in DETECTIONS[:3]},)
