"""The interface between a task and what trains, evaluates and exports its networks."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network learns.

    A batch is a dict: `"image"`, float32 `(batch, height, width, channels)` in [0, 255]; `"weight"`, float32
    `(batch,)`, 0 for images that fill up a batch and count for nothing; and the task's targets. The methods
    on tensors use `keras.ops` alone and also run inside `strategy.run`.

    Attributes:
        name: key of the task in `kvision.tasks.TASKS`.
        target: name of the batch's field that is learned, see `kvision.data.load`.
        monitor: metric by which the best epoch is chosen; higher is better. Of equal ones the lower loss is.
        class_names: in the order of the outputs.
    """

    name: ClassVar[str]
    target: ClassVar[str]
    monitor: ClassVar[str]

    class_names: tuple[str, ...]

    @classmethod
    def options(cls) -> list[str]:
        """The names of the task's own settings."""
        return [field.name for field in dataclasses.fields(cls) if field.name != "class_names"]

    def losses(self, outputs, batch, training: bool) -> dict:
        """Terms of the loss, float32 `(batch,)` each, whose sum is minimised.

        Args:
            outputs: of the network, float32; a dict where the network has several.
            batch: the batch.
            training: whether the terms are those of training, such as those of auxiliary heads.

        Returns:
            The terms by the names under which they are logged. A term called "loss" is logged in place of
            the sum of all.
        """
        raise NotImplementedError

    def sums(self, outputs, batch) -> dict:
        """Sums over a batch from which metrics are computed, float32 of any shape.

        Images of weight 0 add nothing.
        """
        raise NotImplementedError

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics from sums over any number of batches; by default the means over the images.

        Args:
            sums: those of `sums`, those of the terms of the loss under their names, and "images", the number
                of images, at least one.
        """
        return {name: float(value / sums["images"]) for name, value in sums.items() if name != "images"}
