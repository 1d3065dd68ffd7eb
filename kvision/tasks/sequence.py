"""Sequences: one class a row of measurements."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kvision import visualize
from kvision.errors import UserError
from kvision.names import counted, listed
from kvision.tasks.classification import Classification
from kvision.tasks.series import OF_IMAGES, network_keywords, series_in, series_of


@dataclass(frozen=True, kw_only=True)
class Sequence(Classification):
    """Logits `(batch, classes)` of sequences `(batch, steps, features)`, and the target `"label"`.

    Attributes:
        length: number of steps that the network takes.
        features: number of values of a step.
    """

    name: ClassVar = "sequence"
    target: ClassVar = "sequence"
    targets: ClassVar = "sequences with labels"
    input: ClassVar = "series"
    input_rank: ClassVar = 3
    kind: ClassVar = "sequence"
    images: ClassVar = False
    refused: ClassVar = OF_IMAGES

    length: int = dataclasses.field(default=0, metadata={"of_model": True})
    features: int = dataclasses.field(default=0, metadata={"of_model": True})

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`; by default, the network takes the longest sequence as a whole."""
        series = series_of(source)
        return network_keywords(series, length or series.longest) | {"num_classes": len(self.class_names)}

    def fitted(self, model):
        """See `Task.fitted`."""
        length, features = model.inputs[0].shape[1:]
        return dataclasses.replace(self, length=length, features=features)

    def check(self, source):
        """See `Task.check`: sequences of other features."""
        self._check(series_of(source))

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length}

    def items(self, paths):
        """See `Task.items`: the sequences in CSV files, float32 `(rows, features)`."""
        return [item for path in paths for item in self._check(series_in(path)).each()]

    def read(self, item, channels, exif):
        """See `Task.read`: the first rows, zeros behind them where there are fewer than the network takes."""
        rows = item[: self.length]
        return np.pad(rows, ((0, self.length - len(rows)), (0, 0)))

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: rows as they are."""
        return image

    def truths(self, batch):
        """See `Exported.truths`."""
        return batch["label"]

    def shown(self, example):
        """See `Exported.shown`: curves of the features."""
        return visualize.curves(example)

    def _check(self, series):
        if len(series.columns) != self.features:
            raise UserError(
                f"The network takes {counted(self.features, 'feature')}; {series.names[0]} has "
                f"{len(series.columns)}: {listed(series.columns)}."
            )
        return series
