"""Forecasting: the next values of a series."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from kvision import labels, networks, sequence, visualize
from kvision.errors import UserError
from kvision.tasks.forecasts import Forecasts
from kvision.tasks.series import OF_IMAGES, network_keywords, series_in, series_of
from kvision.tasks.task import Accuracy, Exported, Score

HORIZON = 16  # steps ahead
ERRORS = ("mse", "persistence_mse")


@dataclass(frozen=True, kw_only=True)
class Forecasting(Exported):
    """The next values `(batch, features)` of a series `(batch, steps, features)`, in its own units.

    Errors are compared with those of persistence, which forecasts the last value again. The class names are
    the features.

    Attributes:
        length: number of steps that the network takes.
        scale: standard deviation of each feature, by which errors are divided; as the network has it.
        horizon: number of steps that are forecast, each of which follows from those before.
    """

    name: ClassVar = "forecasting"
    target: ClassVar = "next"
    targets: ClassVar = "series"
    input: ClassVar = "series"
    input_rank: ClassVar = 3
    kind: ClassVar = "window"
    images: ClassVar = False
    refused: ClassVar = OF_IMAGES
    rank: ClassVar = 2
    activation: ClassVar = ""
    building: ClassVar = {}
    fewest_classes: ClassVar = 1
    monitor: ClassVar = "skill"
    score: ClassVar = "skill"
    answers: ClassVar = Forecasts
    output: ClassVar = "forecast"
    agreement: ClassVar = "{share} of its forecasts for {images} are the Keras model's"

    length: int = dataclasses.field(default=0, metadata={"of_model": True})
    scale: tuple[float, ...] = dataclasses.field(default=(), metadata={"of_model": True})
    horizon: int = dataclasses.field(default=HORIZON, metadata={"of_answers": True})

    @classmethod
    def fits(cls, model):
        """See `Task.fits`: as many values come out as there are features."""
        return super().fits(model) and model.inputs[0].shape[-1] == model.outputs[0].shape[-1]

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`."""
        return network_keywords(series_of(source), length or variant.default_shape[0])

    def examples(self, source):
        """See `Task.examples`: each window is one."""
        return len(series_of(source).targets(self.length))

    def fitted(self, model):
        """See `Task.fitted`."""
        length, features = model.inputs[0].shape[1:]
        preprocess = networks.preprocess_of(model)
        scale = preprocess.std if preprocess else (1.0,) * features
        return dataclasses.replace(self, length=length, scale=scale)

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length, "horizon": self.horizon}

    @classmethod
    def serving(cls, model):
        """See `Task.serving`: the network itself."""
        return model

    @classmethod
    def exported(cls, model):
        """See `Exported.exported`: the network itself, which must forecast the next value."""
        networks.check(model, cls.rank, cls.input_rank)
        return model

    def losses(self, outputs, batch, training):
        """The mean squared error, of features divided by their scale."""
        return {"loss": self._error(outputs, batch["next"])}

    def sums(self, outputs, batch):
        """Squared errors of the forecast, "mse", and of persistence, "persistence_mse"."""
        forecasts = outputs, batch["series"][:, -1]
        errors = (ops.sum(batch["weight"] * self._error(forecast, batch["next"])) for forecast in forecasts)
        return dict(zip(ERRORS, errors, strict=True))

    def metrics(self, sums):
        """The means, and the "skill": one minus the quotient of the errors, 1 for a perfect forecast."""
        means = super().metrics(sums)
        return means | {"skill": _skill(*(means[name] for name in ERRORS))}

    def ask(self, model, batch, drawn=False):
        """See `Task.ask`: the forecast, `(batch, horizon, features)`."""
        return sequence.forecast(model, batch["series"], self.horizon)

    def judge(self, answers, batch):
        """Squared errors by the number of steps ahead, and how many forecasts they are of, "known"."""
        future = batch["future"]
        known = np.isfinite(future).all(-1)  # (batch, horizon)
        forecasts = answers, batch["series"][:, -1:]
        errors = ((forecast - future) / np.asarray(self.scale, np.float32) for forecast in forecasts)
        squares = (np.sum(np.where(known, np.mean(error**2, -1), 0), 0) for error in errors)
        counts = {"images": np.sum(batch["weight"]), "known": np.sum(known, 0)}
        return counts | dict(zip(ERRORS, squares, strict=True))

    def figures(self, sums):
        """ "mse", "persistence_mse" and "skill" of one step ahead, and of all together "by_step"."""
        known = [int(count) for count in sums["known"] if count]
        means = {name: np.asarray(sums[name])[: len(known)] / known for name in ERRORS}
        by_step = {
            str(step): dict(zip(ERRORS, map(float, errors), strict=True)) | {"skill": _skill(*errors)}
            for step, errors in enumerate(zip(*means.values(), strict=True), 1)
        }
        return {**by_step["1"], "by_step": by_step}

    def report(self, sums):
        """The errors of 1, 2, 4, ... steps ahead beside those of persistence."""
        by_step = self.figures(sums)["by_step"]
        lines = [
            f"{step:>7} ahead  {of['mse']:.4f}  {of['persistence_mse']:.4f}  skill {100 * of['skill']:.1f} %"
            for step, of in by_step.items()
            if math.log2(int(step)).is_integer()
        ]
        first = "mean squared errors, in variances of the features, beside those of persistence:"
        return "\n".join([first, *lines])

    def compare(self, found, expected, targets):
        """The "skill", as `metrics` has it."""
        skills = [
            _skill(*(float(np.mean(self._error(forecast, targets))) for forecast in (of.values, of.last)))
            for of in (found, expected)
        ]
        return Accuracy({"skill": Score(skills[0])}, drop=skills[1] - skills[0])

    def caption(self, answer, probabilities=None):
        """The next values."""
        return ", ".join(f"{name} {value:.6g}" for name, value in zip(self.class_names, answer, strict=True))

    def shown(self, example):
        """See `Exported.shown`: curves of the features."""
        return visualize.curves(example)

    def preview(self, model, batch):
        """See `Task.preview`: curves of the features, with the next values."""
        joined = np.concatenate([batch["series"], batch["next"][:, None]], 1)
        return [(visualize.curves(series), "") for series in joined]

    def items(self, paths):
        """See `Task.items`: the series in CSV files, float32 `(rows, features)`."""
        items = []
        for path in paths:
            series, numbers = series_in(path), labels.numbers(len(self.class_names))
            places, _ = labels.match(self.class_names, series.columns, named=self.class_names != numbers)
            items += series.with_columns(self.class_names, places).each()
        return items

    def read(self, item, channels, exif):
        """See `Task.read`: the last rows of a series."""
        if len(item) < self.length:
            raise UserError(f"The network takes {self.length} rows; the series has {len(item)}.")
        return item[-self.length :]

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: a series as it is."""
        return image

    def restore(self, answer, shape, size):
        """The forecast `(horizon, features)`."""
        return answer

    def describe(self, prediction, most):
        """The next values, a line a step."""
        return [f"{step:>5} ahead  {self.caption(row)}" for step, row in enumerate(prediction, 1)]

    def _error(self, forecast, expected):
        """The mean of the features' squared errors, `(batch,)`."""
        return ops.mean(ops.square((forecast - expected) / np.asarray(self.scale, np.float32)), -1)


def _skill(error, other) -> float:
    """One minus the quotient of two errors; 0 where both are 0."""
    return float(1 - error / other) if other else -math.inf if error else 0.0
