"""The best int8 file of a network: each step is tried, and kept where images that it has not seen say so."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from kvision_export import flatbuffer, verify
from kvision_export.activations import OPERATORS, Activation, Softmax
from kvision_export.census import set_versions
from kvision_export.layers import SAMPLE, correct_biases, own_errors
from kvision_export.quantize import quantize, set_ends
from kvision_export.ranges import Ranges
from kvision_export.rewrite import WEIGHTED, fold_normalization, split_hard_swish

BIAS_IMAGES, ROUNDING_IMAGES = 16, 64
FIRST_LAYERS, WORST_LAYERS = (1, 2, 3, 6), (1, 2, 4)  # how many may stay float
SLOWER, LARGER = 1.01, 1.003  # what they may cost in time and bytes
LESS = 0.99  # of error times time, which noise does not reach


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings by which a file is made.

    Attributes:
        hard_swish: written as products.
        folded: the normalisation is in the first layer, where it can be.
        method: of the activations' ranges.
        corrected: biases are.
        rounded: weights are, by what their layers are given; biases are corrected then.
        floats: names of what stays float, by outputs.
    """

    hard_swish: bool = False
    folded: bool = True
    method: str = "minmax"
    corrected: bool = False
    rounded: bool = False
    floats: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """A file that was tried.

    Attributes:
        name: what was changed.
        kl, sqnr, agreement: as in `verify.Fidelity`, on the images that choose.
        size: in bytes.
        latency_ms: of one thread, by its share of that of the file that was best before.
        kept: whether the next steps build on it.
    """

    name: str
    kl: float
    sqnr: float
    agreement: float
    size: int
    latency_ms: float
    kept: bool

    @property
    def error(self) -> float:
        """KL plus the logits' noise over signal, which shows what saturated probabilities hide."""
        return self.kl + 10 ** (-self.sqnr / 10) if np.isfinite(self.kl) else np.inf


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file, how it was made and what it gave."""

    settings: Settings
    content: bytes
    step: Step


class Search:
    """Makes int8 files of one network.

    Args:
        content: the float `.tflite` file, from pixels in [0, 255] to probabilities.
        calibration: float32 `(height, width, channels)` in [0, 255].
        choice: other such images, by which steps are judged; no range comes from them.
        backend: of `quantize`.
        ends: "uint8" (pixels in, float32 probabilities out), "float32" (both), or "int8" (both, and not one
            float operator between).
        mixed: whether layers may stay float.
        finished: from a file to the one that is written in the end, whose size and time count.
        activation: of the network.
    """

    def __init__(
        self,
        content: bytes,
        calibration: Sequence[np.ndarray],
        choice: Sequence[np.ndarray],
        *,
        backend: str = "litert",
        ends: str = "uint8",
        mixed: bool = True,
        finished: Callable[[bytes], bytes] = bytes,
        activation: Activation = Softmax,
    ):
        self.content, self.calibration, self.choice = content, calibration, choice
        self.backend, self.ends, self.mixed = backend, ends, mixed and ends != "int8"
        self.finished, self.activation = finished, activation
        self.expected = self._answers(content)
        self.steps: list[Step] = []
        self._floats: dict = {}

    def run(self, say: Callable[[str], None] = lambda text: None) -> bytes:
        """Tries all steps and returns the best file, `self.best`; `self.steps` says what each gave."""
        self.say, settings = say, Settings()
        content = self.make(settings)
        times = self._latencies({"this": content})
        step = self._step("ranges from minimum to maximum", content, times["this"])
        self.best = Candidate(settings, content, step)
        self.integers = self.best
        self._note(self.best.step, True)
        self._try("hard-swish as products", hard_swish=True)
        self._try("normalisation before the first layer", folded=False)
        self._try("biases corrected", corrected=True)
        self._try("ranges without the outermost 0.01 %", method="percentile")
        self._try("ranges of least squared error", method="mse")
        if self.mixed:
            firsts = self.first_layers(self.best.settings)
            for count in (count for count in FIRST_LAYERS if count < len(firsts)):
                self._try(_kept_float("first", count), floats=firsts[count - 1])
            worst = [*self.own_errors()]
            for count in (count for count in WORST_LAYERS if count < len(worst)):
                floats = (*self.best.settings.floats, *worst[:count])
                self._try(_kept_float("worst", count), floats=floats)
        self._try("weights rounded by their inputs", rounded=True)
        return self.best.content

    def _try(self, name, **changes):
        """Makes a file with other settings, and keeps it where it is better."""
        settings = dataclasses.replace(self.best.settings, **changes)
        if self._differ(settings):
            self._judge(name, settings, self.make(settings))

    def _judge(self, name, settings, content):
        files = {"best": self.best.content, "this": content, "integers": self.integers.content}
        if self._graph(settings) == self._graph(self.best.settings):
            times = dict.fromkeys(files, 1.0)
        else:
            times = self._latencies(files)
        drift = self.best.step.latency_ms / times["best"]  # of the computer, since the first step
        step = self._step(name, content, drift * times["this"])
        integers = dataclasses.replace(self.integers.step, latency_ms=drift * times["integers"])
        better = _better(step, self.best.step) and (not settings.floats or _affordable(step, integers))
        self._note(step, better)
        if better:
            self.best = Candidate(settings, content, step)
            if not settings.floats:
                self.integers = self.best

    def _latencies(self, files):
        files = {name: self.finished(content) for name, content in files.items()}
        return verify.latencies(files, self.choice[0], threads=1)

    def _step(self, name, content, latency_ms) -> Step:
        found = verify.fidelity(self._answers(content), self.expected, self.activation)
        return Step(
            name, found.kl, found.sqnr, found.agreement, len(self.finished(content)), latency_ms, False
        )

    def _answers(self, content):
        return verify.answers(content, self.choice, activation=self.activation)

    def _note(self, step, kept):
        self.steps.append(dataclasses.replace(step, kept=kept))
        self.say(f"{step.name}: KL {step.kl:.4f}, SQNR {step.sqnr:.1f} dB, "
                 f"{verify.milliseconds(step.latency_ms)} ms{'' if kept else '; not kept'}")  # fmt: skip

    def _differ(self, settings) -> bool:
        """Whether settings make another file than the best; a graph may have nothing to rewrite."""
        new, old = (
            (self._graph(of), of.method, of.corrected, of.rounded) for of in (settings, self.best.settings)
        )
        return new != old

    def _graph(self, settings):
        """The part of the settings that decides on the time that a file takes."""
        return self._float_file(settings)[0], settings.floats

    def first_layers(self, settings: Settings) -> list[tuple[str, ...]]:
        """Operators that stay float with the first layer, with the first two, ..., and all before them."""
        model = flatbuffer.read(self._float_file(settings)[0])
        found, names = [], ()
        for operator in model.subgraphs[0].operators:
            names = *names, _name(model, operator)
            if flatbuffer.operator_name(model, operator) in WEIGHTED:
                found.append(names)
        return found

    def own_errors(self) -> dict[str, float]:
        """Error that each layer of the best file adds by itself; see `layers.own_errors`."""
        floats, zero_point, _ = self._float_file(self.best.settings)
        images = [image - np.float32(zero_point) for image in self.choice[:SAMPLE]]
        return own_errors(self.best.content, floats, images)

    def make(self, settings: Settings) -> bytes:
        """The int8 file of some settings."""
        floats, zero_point, ranges = self._float_file(settings)
        model = flatbuffer.read(floats)
        content = quantize(
            floats,
            ranges.find(settings.method) | self._input_range(model, zero_point),
            backend=self.backend,
            floats=(*self._activation(model), *settings.floats),
        )
        if settings.corrected or settings.rounded:
            count = ROUNDING_IMAGES if settings.rounded else BIAS_IMAGES
            images = [image - np.float32(zero_point) for image in self.calibration[:count]]
            content = correct_biases(content, floats, images, settings.rounded)
        return set_versions(set_ends(content, self.ends, zero_point))

    def _input_range(self, model, zero_point):
        return {int(model.subgraphs[0].inputs[0]): (float(-zero_point), float(255 - zero_point))}

    def _activation(self, model) -> list[str]:
        """The operator that gives the probabilities, whose int8 knows steps of 1/256 only."""
        last = model.subgraphs[0].operators[-1]
        there = flatbuffer.operator_name(model, last) in OPERATORS
        return [_name(model, last)] if there and self.ends != "int8" else []

    def _float_file(self, settings) -> tuple[bytes, int, Ranges]:
        key = settings.hard_swish, settings.folded
        if key not in self._floats:
            content, zero_point = self.content, 0
            if settings.hard_swish:
                content, _ = split_hard_swish(content)
            if settings.folded and (folded := fold_normalization(content)):
                content, zero_point = folded
            for made in self._floats.values():
                if made[0] == content:
                    self._floats[key] = made
                    return made
            images = (image - np.float32(zero_point) for image in self.calibration)
            self._floats[key] = content, zero_point, Ranges(content, images)
        return self._floats[key]


def _better(new: Step, old: Step) -> bool:
    """Whether error times time is less by a hundredth."""
    return new.error * new.latency_ms < LESS * old.error * old.latency_ms


def _affordable(new: Step, integers: Step) -> bool:
    """Whether float layers cost hardly more time and bytes than none."""
    return new.latency_ms <= SLOWER * integers.latency_ms and new.size <= LARGER * integers.size


def _kept_float(which, count):
    return f"{which} {count} layers float" if count > 1 else f"{which} layer float"


def _name(model, operator):
    return model.subgraphs[0].tensors[operator.outputs[0]].name.decode()
