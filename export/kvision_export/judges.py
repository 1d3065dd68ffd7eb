"""Judges of exported files: one for probabilities of classes, one for boxes, one for forecasts."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np

from kvision import networks, sequence
from kvision.average_precision import iou
from kvision.errors import UserError
from kvision.tasks import Answers, Captions, Detections, Exported, Forecasts
from kvision_export import inputs, players, runner, verify
from kvision_export.activations import ACTIVATIONS, FAINTEST, SMALLEST, Activation, Softmax
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
        differs: what is the fidelity's `largest_difference`.
        broken: largest difference that no float file has.
    """

    differs: ClassVar[str] = "a probability differs by"
    broken: ClassVar[float] = 1e-3
    about: ClassVar[Mapping[str, str]]
    measures: ClassVar[Mapping[str, Measure]]

    @abc.abstractmethod
    def of_model(self, model: keras.Model, images: np.ndarray) -> Any:
        """Answers of the network that a file holds, see `Exported.exported`, to images, see `inputs`."""

    @abc.abstractmethod
    def of_file(self, content: bytes, images: np.ndarray, pixels: bool = True) -> Any:
        """Answers of a file; see `runner.predict`."""

    def open(self, content: bytes, threads: int, pixels: bool = True) -> tuple[Any, Callable]:
        """A file to be invoked, and what feeds it an image; see `runner.open_file`."""
        return runner.open_file(content, threads, pixels)

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

    differs: ClassVar = "a forecast differs, in units of the scale, by"
    about: ClassVar = {
        "measures": f"A file agrees on a value that differs by at most {NEAR:g} of its feature's scale; mean "
        "and largest are those of the differences, in units of the scale.",
        "error": "the mean squared difference, in units of the scale",
    }
    measures: ClassVar = {
        "mean_difference": Measure("mean", 4),
        "largest_difference": Measure("largest", 4),
    }

    def __init__(self, scale: Sequence[float]):
        self.scale = np.asarray(scale, np.float32)

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


@dataclasses.dataclass(frozen=True)
class CaptionFidelity:
    """Distance of a file's captions from the Keras model's greedy ones.

    Attributes:
        agreement: share of the captions that are equal.
        words: share of the places at which the words are.
        largest_difference, error: share of the captions that are not equal.
        worst: numbers of the images with the fewest equal words, the worst first.
    """

    agreement: float
    words: float
    largest_difference: float
    error: float
    worst: list[int]


class PlayerJudge(Judge):
    """A judge of files that are played, see `players`.

    Args:
        player: class of the player.
        length: most words of a caption.
    """

    def __init__(self, player: type[players.Player], length: int = 0):
        self.player, self.length = player, length

    def open(self, content, threads, pixels=True):
        player = self.player(content, threads, pixels, self.length)
        return player, player.feed

    def played(self, content, images, pixels) -> Iterator[np.ndarray]:
        """The answers of a file."""
        return players.answers(self.player(content, runner.THREADS, pixels, self.length), images)


class FrameJudge(PlayerJudge, ClassJudge):
    """Judge of probabilities that follow from one frame after the other."""

    activation = Softmax

    def of_file(self, content, images, pixels=True) -> Answers:
        return verify.collect(self.played(content, images, pixels), least=FAINTEST)


class CaptionJudge(PlayerJudge):
    """Judge of greedy captions."""

    differs: ClassVar = "the share of captions that are not the Keras model's is"
    broken: ClassVar = 0.1
    about: ClassVar = {
        "measures": "A file agrees on a caption whose words are all the Keras model's, which takes the "
        "likeliest word at each place; words is the share of places at which they are.",
        "error": "the share of captions that are not the Keras model's",
    }
    measures: ClassVar = {"words": Measure("words", 4)}

    def of_model(self, model, images) -> Captions:
        starts = range(0, len(images), BATCH)
        return Captions(
            np.concatenate([sequence.greedy(model, images[start : start + BATCH]) for start in starts])
        )

    def of_file(self, content, images, pixels=True) -> Captions:
        return Captions(np.stack([*self.played(content, images, pixels)]))

    def fidelity(self, found, expected) -> CaptionFidelity:
        equal = found.tokens == expected.tokens
        agreement = float(equal.all(-1).mean())
        return CaptionFidelity(
            agreement=agreement,
            words=float(equal.mean()),
            largest_difference=1 - agreement,
            error=1 - agreement,
            worst=np.argsort(equal.mean(-1), kind="stable")[: verify.WORST].tolist(),
        )


@dataclasses.dataclass(frozen=True)
class OutputFidelity:
    """Distance of the outputs of a file from those of another.

    Attributes:
        sqnr: signal over error, in dB.
        agreement: share of the examples whose error is at most a tenth of the signal.
        largest_difference: of a value.
        error: error over signal.
        worst: numbers of the examples with the largest error, the worst first.
    """

    sqnr: float
    agreement: float
    largest_difference: float
    error: float
    worst: list[int]


class OutputJudge(Judge):
    """Judge of the outputs of a part of a network, such as a state, by all of their values."""

    about: ClassVar = {"measures": "SQNR is of all outputs.", "error": "error over signal"}
    measures: ClassVar = {"sqnr": Measure("SQNR dB", 1)}

    def of_model(self, model, images):
        raise NotImplementedError("parts of networks are judged beside their float files alone")

    def of_file(self, content, images, pixels=True) -> np.ndarray:
        """All outputs of each example in a row."""
        outputs = runner.named_outputs(content, images, pixels)
        return np.stack([np.concatenate([part.ravel() for part in of.values()]) for of in outputs])

    def fidelity(self, found, expected) -> OutputFidelity:
        errors = np.square(found - expected).sum(-1) / np.maximum(np.square(expected).sum(-1), SMALLEST)
        return OutputFidelity(
            sqnr=float(-10 * np.log10(max(errors.mean(), SMALLEST))),
            agreement=float((errors <= 0.1).mean()),
            largest_difference=float(np.abs(found - expected).max()),
            error=float(errors.mean()),
            worst=np.argsort(-errors, kind="stable")[: verify.WORST].tolist(),
        )


PLAYED: Mapping[type, type[PlayerJudge]] = {Answers: FrameJudge, Captions: CaptionJudge}
JUDGES: Mapping[type, Callable[[Any], Judge]] = {  # by `Exported.answers`
    Answers: lambda task: ClassJudge(ACTIVATIONS[task.activation]),
    Detections: lambda task: BoxJudge(),
    Forecasts: lambda task: ForecastJudge(task.scale),
}


def judge_of(task: Exported, signatures: Iterable[str] = ()) -> Judge:
    """The judge of a task's answers, which files with such signatures give."""
    player = players.PLAYERS.get(tuple(signatures))
    if player is None:
        return JUDGES[task.answers](task)
    return PLAYED[task.answers](player, getattr(task, "length", 0))


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
