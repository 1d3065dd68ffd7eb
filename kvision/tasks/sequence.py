"""Sequences: one class a row of measurements."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kvision import visualize
from kvision.data.sources import Source, open_source
from kvision.spec import Preprocess
from kvision.tasks.classification import Classification


@dataclass(frozen=True, kw_only=True)
class Sequence(Classification):
    """Logits `(batch, classes)` of sequences `(batch, steps, features)`, and the target `"label"`.

    Attributes:
        length: number of steps that the network takes.
    """

    name: ClassVar = "sequence"
    target: ClassVar = "sequence"
    targets: ClassVar = "sequences"
    input: ClassVar = "series"
    input_rank: ClassVar = 3
    images: ClassVar = False

    length: int = dataclasses.field(default=0, metadata={"of_model": True})

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`."""
        return series_keywords(variant, source, length) | {"num_classes": len(self.class_names)}

    def fitted(self, model):
        """See `Task.fitted`."""
        return dataclasses.replace(self, length=model.inputs[0].shape[1])

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length}

    def items(self, paths):
        """See `Task.items`: the sequences in CSV files, float32 `(rows, features)`."""
        return sequences_in(paths, self.target)

    def read(self, item, channels, exif):
        """See `Task.read`: the first rows, zeros behind them where there are fewer than the network takes."""
        rows = item[: self.length]
        return np.pad(rows, ((0, self.length - len(rows)), (0, 0)))

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: rows as they are."""
        return image

    def preview(self, model, batch):
        """See `Task.preview`: curves of the features, with the class."""
        return [
            (visualize.curves(series), self.caption(label))
            for series, label in zip(batch["series"], batch["label"], strict=True)
        ]


def series_keywords(variant, source: Source, length: int | None) -> dict:
    """Keywords for networks of series: the shape of the input, and the normalisation by the training's values."""
    series = source.series
    assert series is not None
    preprocess = Preprocess(tuple(series.mean.tolist()), tuple(series.std.tolist()))
    return {"input_shape": (length or variant.default_shape[0], len(series.columns)), "preprocess": preprocess}


def sequences_in(paths: Iterable[str], target: str) -> list[tuple[str, np.ndarray]]:
    """The series in CSV files by their names, float32 `(rows, features)`; see `kvision.data.sources.series`."""
    found = []
    for path in paths:
        series = open_source(f"series:{path}", "all", labeled=False, target=target).series
        assert series is not None
        starts = zip(series.starts, series.starts[1:], strict=False)
        found += [(name, series.values[start:end]) for name, (start, end) in zip(series.names, starts, strict=True)]
    return found
