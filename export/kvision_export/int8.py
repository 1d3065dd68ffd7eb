"""The best int8 file of a network: each step is tried, and kept where images that it has not seen say so."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from kvision_export import flatbuffer, verify
from kvision_export.census import set_versions
from kvision_export.layers import correct_biases, own_errors
from kvision_export.quantize import quantize, set_ends
from kvision_export.ranges import Ranges
from kvision_export.rewrite import WEIGHTED, fold_normalization, split_hard_swish

BIAS_IMAGES = 16
NOTHING, DECIBELS = 2e-3, 1.0  # a divergence that no answer shows; what a nearer file may lose of its SQNR
FIRST_LAYERS = (1, 2, 3, 6)  # how many may stay float
SLOWER, FASTER, LARGER = 1.05, 1.1, 1.05  # what another graph may cost in time, must save, may cost in bytes


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a file is made.

    Attributes:
        hard_swish: written as products.
        folded: the normalisation is in the first layer.
        method: of the activations' ranges.
        corrected: biases are.
        first_floats: so many layers stay float, and all before them.
    """

    hard_swish: bool = False
    folded: bool = False
    method: str = "minmax"
    corrected: bool = False
    first_floats: int = 0


@dataclasses.dataclass(frozen=True)
class Step:
    """A file that was tried.

    Attributes:
        name: what was changed.
        kl, sqnr, agreement: as in `verify.Fidelity`, on the images that choose.
        size: in bytes.
        latency_ms: median of one thread's own time.
        kept: whether the next steps build on it.
    """

    name: str
    kl: float
    sqnr: float
    agreement: float
    size: int
    latency_ms: float
    kept: bool


class Search:
    """Makes int8 files of one network.

    Args:
        content: the float `.tflite` file, from pixels in [0, 255] to probabilities.
        calibration: float32 `(height, width, channels)` in [0, 255].
        choice: other such images, by which steps are judged.
        backend: of `quantize`.
        ends: "uint8" (pixels in, float32 probabilities out), "float32" (both), or "int8" (both, and not one
            float operator between).
        mixed: whether first layers may stay float.
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
    ):
        self.content, self.calibration, self.choice = content, calibration, choice
        self.backend, self.ends, self.mixed = backend, ends, mixed and ends != "int8"
        self.expected = verify.answers(content, choice)
        self.steps: list[Step] = []
        self._floats: dict = {}

    def run(self, say: Callable[[str], None] = lambda text: None) -> bytes:
        """Tries all steps and returns the best file, of `self.settings`; `self.steps` says what each gave."""
        best, content = Settings(), self.make(Settings())
        kept, _ = self._judge("minimum and maximum", content, content)
        self._note(kept, True, say)
        for name, changes in self._changes():
            tried = dataclasses.replace(best, **changes)
            if not self._differ(tried, best):
                continue
            candidate = self.make(tried)
            step, latency_ms = self._judge(name, candidate, content)
            same_graph = not {"hard_swish", "folded", "first_floats"} & {*changes}
            better = _better(step, kept, 1.0 if same_graph else step.latency_ms / latency_ms)
            self._note(step, better, say)
            if better:
                best, content, kept = tried, candidate, step
        self.settings, self.best = best, content
        return content

    def _changes(self):
        yield "hard-swish as products", {"hard_swish": True}
        yield "normalisation in the first layer", {"folded": True}
        yield "biases corrected", {"corrected": True}
        yield "ranges without 0.01 %", {"method": "percentile"}
        yield "ranges of least squares", {"method": "mse"}
        if self.mixed:
            model = flatbuffer.read(self.content)
            kinds = [flatbuffer.operator_name(model, op) for op in model.subgraphs[0].operators]
            for count in FIRST_LAYERS:
                if count >= sum(kind in WEIGHTED for kind in kinds):
                    break
                yield (
                    f"first {count} layers float" if count > 1 else "first layer float",
                    {"first_floats": count},
                )

    def _note(self, step, kept, say):
        self.steps.append(dataclasses.replace(step, kept=kept))
        say(f"{step.name}: KL {step.kl:.4f}, SQNR {step.sqnr:.1f} dB, {step.latency_ms:.2f} ms"
            f"{'' if kept else '; not kept'}")  # fmt: skip

    def _judge(self, name, content, other) -> tuple[Step, float]:
        """What a file gives, and the other file's time, measured in turns."""
        found = verify.fidelity(verify.answers(content, self.choice), self.expected)
        times = verify.latencies({"this": content, "other": other}, self.choice[0], threads=1)
        step = Step(name, found.kl, found.sqnr, found.agreement, len(content), times["this"], False)
        return step, times["other"]

    def _differ(self, tried, best) -> bool:
        """Whether settings make another file; a graph may have nothing to rewrite."""
        same_graph = {"hard_swish": best.hard_swish, "folded": best.folded}
        return self._float_file(tried) is not self._float_file(best) or (
            dataclasses.replace(tried, **same_graph) != best
        )

    def worst_layers(self, count: int) -> list[tuple[str, float]]:
        """What each layer of the best file adds to the error on `count` images, in dB, the worst first."""
        floats, zero_point, _ = self._float_file(self.settings)
        images = [image - np.float32(zero_point) for image in self.choice[:count]]
        errors = own_errors(self.best, floats, images)
        return sorted(
            ((name.rpartition(";")[2], value) for name, value in errors.items()), key=lambda e: e[1]
        )

    def make(self, settings: Settings) -> bytes:
        """The int8 file of some settings."""
        floats, zero_point, ranges = self._float_file(settings)
        model = flatbuffer.read(floats)
        content = quantize(
            floats,
            ranges.find(settings.method) | self._input_range(model, zero_point),
            backend=self.backend,
            floats=self._kept_float(model, settings.first_floats),
        )
        if settings.corrected:
            images = [image - np.float32(zero_point) for image in self.calibration[:BIAS_IMAGES]]
            content = correct_biases(content, floats, images)
        return set_versions(set_ends(content, self.ends, zero_point))

    def _input_range(self, model, zero_point):
        return {int(model.subgraphs[0].inputs[0]): (float(-zero_point), float(255 - zero_point))}

    def _kept_float(self, model, first_floats) -> list[str]:
        """The names of the softmax, of the first layers, and of all before these."""
        if self.ends == "int8":
            return []
        graph, layers, names = model.subgraphs[0], 0, []
        for operator in graph.operators:
            kind = flatbuffer.operator_name(model, operator)
            name = graph.tensors[operator.outputs[0]].name.decode()
            last = kind == "SOFTMAX" and operator.outputs[0] == graph.outputs[0]
            if last or layers < first_floats:
                names.append(name)
            layers += kind in WEIGHTED
        return names

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


def _better(new: Step, old: Step, share: float) -> bool:
    """Nearer the Keras model and hardly slower, or faster and not farther by as much.

    Args:
        new, old: what was tried, and what it was built on.
        share: the new one's time of the old one's; 1 where the graph is the same.
    """
    nearer = new.kl < old.kl and new.sqnr > old.sqnr - DECIBELS
    faster = FASTER * share < 1 and new.kl * share < max(old.kl, NOTHING)
    nearer = (nearer or not np.isfinite(old.kl)) and share <= SLOWER
    return bool(np.isfinite(new.kl)) and (nearer or faster) and new.size <= LARGER * old.size
