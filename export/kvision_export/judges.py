"""Judges of exported files: one for probabilities of classes, one for boxes, one for forecasts."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np

from kvision import networks
from kvision.average_precision import iou
from kvision.errors import UserError
from kvision.tasks import Answers, Detections, Exported, Forecasts
from kvision_export import inputs, runner, verify
from kvision_export.activations import ACTIVATIONS, Activation, Softmax
from kvision_export.modes import REFERENCE

BATCH = 32  # images whose outputs are held whole
SURE = 0.25  # score from which on a detection counts, as in pictures
SAME = 0.9  # intersection over union of boxes that are the same
NEAR = 0.01  # difference of forecasts that are the same, in units of the scale


class Measure(NamedTuple):
    """A figure of a fidelity.

    Attributes:
        title: for readers.
        digits: behind the point.
        of_reference: whether the reference file has it too.
    """

    title: str
    digits: int
    of_reference: bool = True


def figures(measures: Mapping[str, Mapping], values: Mapping[str, float], mode: str = "") -> list[str]:
    """The measures of a file's fidelity as texts; "" for those that the reference lacks.

    Args:
        measures: as dicts, as reports have them.
        values: by the measures' names.
        mode: of the file.
    """
    return [
        f"{values[name]:.{of['digits']}f}" if of["of_reference"] or mode != REFERENCE else ""
        for name, of in measures.items()
    ]


class Judge(abc.ABC):
    """Reads answers, and compares those of files with the Keras model's.

    Attributes:
        about: sentence on the "measures", and what the "error" is, for readers of a report.
        measures: what a fidelity has for this kind of answers, by its attributes' names.
        differs: what differs by the fidelity's `largest_difference`.
    """

    differs: ClassVar[str] = "a probability"
    about: ClassVar[Mapping[str, str]]
    measures: ClassVar[Mapping[str, Measure]]

    @abc.abstractmethod
    def of_model(self, model: keras.Model, images: np.ndarray) -> Any:
        """Answers of the network that a file holds, see `Exported.exported`, to images, see `inputs`."""

    @abc.abstractmethod
    def of_file(self, content: bytes, images: np.ndarray, pixels: bool = True) -> Any:
        """Answers of a file; see `runner.predict`."""

    def expected(self, of_model, of_float_file) -> Any:
        """The answers with which those of files are compared: the Keras model's."""
        return of_model

    @abc.abstractmethod
    def fidelity(self, found, expected) -> Any:
        """Compares answers; it has `agreement`, `largest_difference`, `worst`, `error` and the measures."""


class ClassJudge(Judge):
    """Judge of probabilities.

    Args:
        activation: activation of the network.
    """

    about: ClassVar = {
        "measures": f"KL and SQNR compare with the {REFERENCE} file.",
        "error": "its KL plus the noise-to-signal ratio of its logits",
    }
    measures: ClassVar = {"kl": Measure("KL", 4), "sqnr": Measure("SQNR dB", 1, of_reference=False)}

    def __init__(self, activation: Activation = Softmax):
        self.activation = activation

    def of_model(self, model, images) -> Answers:
        """See `Judge.of_model`; raises a UserError unless these are probabilities."""
        return verify.collect(self._probabilities(model, images), activation=self.activation)

    def of_file(self, content, images, pixels=True) -> Answers:
        return verify.answers(content, images, pixels, self.activation)

    def expected(self, of_model, of_float_file) -> Answers:
        """The Keras model's with the float file's logits, which its probabilities do not tell."""
        return dataclasses.replace(of_model, logits=of_float_file.logits)

    def fidelity(self, found, expected) -> verify.Fidelity:
        return verify.fidelity(found, expected, self.activation)

    def _probabilities(self, model, images):
        for outputs in _predictions(model, images):
            if not self.activation.are_probabilities(outputs):
                raise UserError(
                    f"{model.name} must end in probabilities: a softmax over its classes, or a sigmoid for "
                    "each."
                )
            yield from outputs


@dataclasses.dataclass(frozen=True)
class BoxFidelity:
    """Distance of a file from the Keras model, whose detections of a score of at least 0.25 count.

    Where it has none of them, all of its detections count. Each is compared with the file's detection of its
    class that overlaps it most.

    Attributes:
        agreement: share of the detections that the file has, with an intersection over union of at least 0.9.
        iou: mean intersection over union; 0 where the file has none.
        score_difference: mean absolute difference of the scores; the score itself where the file has none.
        largest_difference: that of the scores of the same detections.
        error: one minus the mean of intersection over union times one minus the difference of the scores, of
            the model's detections in the file and of the file's in the model.
        worst: numbers of the images with the largest error, the worst first.
    """

    agreement: float
    iou: float
    score_difference: float
    largest_difference: float
    error: float
    worst: list[int]


class BoxJudge(Judge):
    """Judge of detections."""

    about: ClassVar = {
        "measures": f"A file agrees on a detection of the Keras model of a score of at least {SURE} where it "
        f"has one of its class with an intersection over union of at least {SAME}; IoU is the mean of these, "
        "and score that of the scores' differences.",
        "error": "one minus the mean of intersection over union times one minus the scores' difference",
    }
    measures: ClassVar = {"iou": Measure("IoU", 3), "score_difference": Measure("score", 3)}

    def of_model(self, model, images) -> Detections:
        rows = (
            {name: part[i] for name, part in outputs.items()}
            for outputs in _predictions(model, images)
            for i in range(len(outputs["number"]))
        )
        return Detections.of_outputs(rows, networks.image_shape(model)[1:3])

    def of_file(self, content, images, pixels=True) -> Detections:
        size = inputs.pixels(images).shape[1:3]
        return Detections.of_outputs(runner.named_outputs(content, images, pixels), size)

    def fidelity(self, found, expected) -> BoxFidelity:
        there, back = _overlaps(expected, found), _overlaps(found, expected)
        overlaps, differences = (np.concatenate(parts) for parts in zip(*there, strict=True))
        same = overlaps >= SAME
        scores_known = np.isfinite(found.scores).all() and np.isfinite(found.boxes).all()
        errors = np.array([_error(*pair) for pair in zip(there, back, strict=True)])
        return BoxFidelity(
            agreement=float(same.mean()) if len(same) else 1.0,
            iou=float(overlaps.mean()) if len(overlaps) else 1.0,
            score_difference=float(differences.mean()) if len(differences) else 0.0,
            largest_difference=float(differences[same].max(initial=0)) if scores_known else float("nan"),
            error=float(errors.mean()),
            worst=np.argsort(-errors, kind="stable")[: verify.WORST].tolist(),
        )


@dataclasses.dataclass(frozen=True)
class ForecastFidelity:
    """Distance of a file's forecasts from the Keras model's, in units of the scale.

    Attributes:
        agreement: share of the values that differ by at most a hundredth.
        largest_difference, mean_difference: absolute difference of a value.
        error: mean squared difference.
        worst: numbers of the windows with the largest difference, the worst first.
    """

    agreement: float
    largest_difference: float
    mean_difference: float
    error: float
    worst: list[int]


class ForecastJudge(Judge):
    """Judge of forecasts.

    Args:
        scale: of each feature, by which differences are divided.
    """

    differs: ClassVar = "a forecast, in units of the scale,"
    about: ClassVar = {
        "measures": f"A file agrees on a value that differs by at most {NEAR:g} of its feature's scale; mean and "
        "largest are those of the differences, in units of the scale.",
        "error": "the mean squared difference, in units of the scale",
    }
    measures: ClassVar = {
        "mean_difference": Measure("mean", 6),
        "largest_difference": Measure("largest", 6),
    }

    def __init__(self, scale: Sequence[float]):
        self.scale = np.float32(scale)

    def of_model(self, model, images) -> Forecasts:
        return Forecasts(np.concatenate([*_predictions(model, images)]), images[:, -1])

    def of_file(self, content, images, pixels=True) -> Forecasts:
        return Forecasts(runner.predict(content, images, pixels), images[:, -1])

    def fidelity(self, found, expected) -> ForecastFidelity:
        difference = np.abs(found.values - expected.values) / self.scale
        return ForecastFidelity(
            agreement=float((difference <= NEAR).mean()),
            largest_difference=float(difference.max()),
            mean_difference=float(difference.mean()),
            error=float(np.square(difference).mean()),
            worst=np.argsort(-difference.max(-1), kind="stable")[: verify.WORST].tolist(),
        )


JUDGES: Mapping[type, Callable[[Any], Judge]] = {  # by `Exported.answers`
    Answers: lambda task: ClassJudge(ACTIVATIONS[task.activation]),
    Detections: lambda task: BoxJudge(),
    Forecasts: lambda task: ForecastJudge(task.scale),
}


def judge_of(task: Exported) -> Judge:
    """The judge of a task's answers."""
    return JUDGES[task.answers](task)


def _predictions(model, images) -> Iterator:
    """The network's outputs, one batch after the other; raises a UserError for NaN or infinity."""
    alone = images.dtype.names is None
    batch = BATCH if alone else 1  # an image with proposals is a batch of regions
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        outputs = model.predict(part if alone else inputs.named(part), verbose=0)
        if not all(np.isfinite(part).all() for part in keras.tree.flatten(outputs)):
            raise UserError(f"The output of {model.name} contains NaN or infinity.")
        yield outputs


def _overlaps(expected: Detections, found: Detections) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """For each image, of those that count, the largest IoU with one of its class and the scores' distance."""
    least = SURE if (expected.scores >= SURE).any() else 0.0
    images = []
    for number in range(len(expected.count)):
        (ours,), (theirs,) = expected.at(number), found.at(number)
        counts = ours["scores"] >= least
        overlap = iou(ours["boxes"][counts], theirs["boxes"])
        overlap *= ours["classes"][counts][:, None] == theirs["classes"]
        overlap = np.concatenate([overlap, np.zeros((len(overlap), 1))], 1)  # where the file has none
        best = overlap.argmax(1)
        difference = np.abs(ours["scores"][counts] - np.append(theirs["scores"], 0)[best])
        lacking = overlap.max(1) == 0
        images.append((overlap.max(1), np.where(lacking, ours["scores"][counts], difference)))
    return images


def _error(*ways) -> float:
    """One minus the mean of overlaps times likeness of scores, there and back, of an image."""
    return 1 - sum(float(np.mean(part * (1 - far))) if len(part) else 1.0 for part, far in ways) / len(ways)
