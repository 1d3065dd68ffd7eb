"""Sequences: one class a row of measurements."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from kvision import visualize
from kvision.data.sources import Source
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
