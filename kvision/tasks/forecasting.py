"""Forecasting: the next values of a series."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from kvision import networks, sequence, visualize
from kvision.errors import UserError
from kvision.tasks.sequence import sequences_in, series_keywords
from kvision.tasks.task import Task

HORIZON = 16  # steps ahead up to which errors are measured
STEPS = (1, 4, 16)  # of which reports tell the error


@dataclass(frozen=True, kw_only=True)
class Forecasting(Task):
    """The next values `(batch, features)` of a series `(batch, steps, features)`, in its own units.

    Errors are compared with those of persistence, which forecasts the last value again.

    Attributes:
        length: number of steps that the network takes.
        scale: standard deviation of each feature, by which errors are divided; as the network has it.
    """

    name: ClassVar = "forecasting"
    target: ClassVar = "next"
    targets: ClassVar = "series"
    input: ClassVar = "series"
    input_rank: ClassVar = 3
    images: ClassVar = False
    rank: ClassVar = 2
    activation: ClassVar = "linear"
    building: ClassVar = {}
    fewest_classes: ClassVar = 1
    monitor: ClassVar = "skill"
    score: ClassVar = "skill"

    length: int = dataclasses.field(default=0, metadata={"of_model": True})
    scale: tuple[float, ...] = dataclasses.field(default=(), metadata={"of_model": True})

    def network_keywords(self, variant, source, image_shape, length):
        """See `Task.network_keywords`."""
        return series_keywords(variant, source, length)

    def examples(self, source):
        """See `Task.examples`: each window is one."""
        return len(source.series.targets(self.length))

    def fitted(self, model):
        """See `Task.fitted`."""
        length, features = model.inputs[0].shape[1:]
        preprocess = networks.preprocess_of(model)
        scale = preprocess.std if preprocess else (1.0,) * features
        return dataclasses.replace(self, length=length, scale=scale)

    @property
    def loading(self):
        """See `Task.loading`."""
        return {"target": self.target, "length": self.length, "horizon": HORIZON}

    @classmethod
    def serving(cls, model):
        """See `Task.serving`: the network itself."""
        return model

    def losses(self, outputs, batch, training):
        """The mean squared error, of features divided by their scale."""
        return {"loss": ops.mean(self._squares(outputs, batch["next"]), -1)}

    def sums(self, outputs, batch):
        """Squared errors of the forecast, "mse", and of persistence, "persistence_mse"."""
        errors = {"mse": outputs, "persistence_mse": batch["series"][:, -1]}
        return {
            name: ops.sum(batch["weight"] * ops.mean(self._squares(forecast, batch["next"]), -1))
            for name, forecast in errors.items()
        }

    def metrics(self, sums):
        """The means, and the "skill": one minus the quotient of the errors, 1 for a perfect forecast."""
        means = super().metrics(sums)
        return means | {"skill": _skill(means["mse"], means["persistence_mse"])}

    def answer(self, model, batch):
        """See `Task.answer`: the forecast of some steps, `(batch, steps, features)`; each follows from those before."""
        return sequence.forecast(model, batch["series"], HORIZON)

    def judge(self, answers, batch):
        """Squared errors by the number of steps ahead, and how many of them are known."""
        future, last = batch["future"], batch["series"][:, -1:]
        known = np.isfinite(future).all(-1)  # (batch, steps)
        errors = {"squares": answers, "persistence_squares": np.broadcast_to(last, future.shape)}
        return {
            "images": np.sum(batch["weight"]),
            "known": known.sum(0),
            **{
                name: np.where(known, np.mean(((forecast - future) / self.scale) ** 2, -1), 0).sum(0)
                for name, forecast in errors.items()
            },
        }

    def figures(self, sums):
        """ "mse", "persistence_mse" and "skill" of one step ahead, and the same of each number of steps by it."""
        known = np.maximum(np.asarray(sums["known"]), 1)
        errors, naive = (np.asarray(sums[name]) / known for name in ("squares", "persistence_squares"))
        by_step = {
            str(step): {"mse": float(error), "persistence_mse": float(other), "skill": _skill(error, other)}
            for step, (error, other, count) in enumerate(zip(errors, naive, sums["known"], strict=True), 1)
            if count
        }
        return {**by_step["1"], "by_step": by_step}

    def report(self, sums):
        """The errors some steps ahead beside those of persistence."""
        by_step = self.figures(sums)["by_step"]
        return "\n".join(
            ["squared errors in units of the features' variances"]
            + [
                f"  {step:>2} ahead: {of['mse']:.4f}, persistence {of['persistence_mse']:.4f}, skill {100 * of['skill']:.1f} %"
                for step in map(str, STEPS)
                if (of := by_step.get(step))
            ]
        )

    def preview(self, model, batch):
        """See `Task.preview`: curves of the features, with the next values."""
        joined = np.concatenate([batch["series"], batch["next"][:, None]], 1)
        return [(visualize.curves(series), "") for series in joined]

    def items(self, paths):
        """See `Task.items`: the series in CSV files, float32 `(rows, features)`."""
        return sequences_in(paths, self.target)

    def read(self, item, channels, exif):
        """See `Task.read`: the last rows of a series."""
        if len(item) < self.length:
            raise UserError(f"The network takes {self.length} rows; the series has {len(item)}.")
        return item[-self.length :]

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: a series as it is."""
        return image

    def restore(self, answer, shape, size):
        """The forecast `(steps, features)`."""
        return answer

    def describe(self, prediction, most):
        """The next values, a line a step."""
        return [
            f"{step:>3} ahead: " + ", ".join(f"{name} {value:.6g}" for name, value in zip(self.class_names, row, strict=True))
            for step, row in enumerate(prediction[:most], 1)
        ]

    def _squares(self, forecast, expected):
        return ops.square((forecast - expected) / ops.convert_to_tensor(self.scale, "float32"))


def _skill(error, other) -> float:
    """One minus the quotient of two errors; 0 where both are 0."""
    return float(1 - error / other) if other else float(0.0 if not error else -np.inf)
