"""The best int8 file of a network: each step is tried, and kept where images that it has not seen say so."""

import dataclasses
from collections.abc import Callable

import numpy as np

from kvision_export import latency
from kvision_export.int8 import Int8Files, Settings
from kvision_export.judges import ClassJudge, Judge
from kvision_export.layer_errors import SAMPLE

FIRST_LAYERS, LAST_LAYERS, WORST_LAYERS = (1, 2, 3, 6), (1, 2, 4, 6), (1, 2, 4)  # how many may stay float
SLOWER, LARGER = 1.01, 1.003  # what they may cost in time and bytes where integers agree well enough
LESS = 0.99  # of error times time, which noise does not reach


@dataclasses.dataclass(frozen=True)
class Step:
    """A file that was tried.

    Attributes:
        name: what was changed.
        measures: those of the judge, on the images that choose.
        error, agreement: of the fidelity on them.
        size: in bytes.
        latency_ms: milliseconds on one thread: those of the file that was best before times the ratio to it.
        kept: whether the next steps build on it.
    """

    name: str
    measures: dict[str, float]
    error: float
    agreement: float
    size: int
    latency_ms: float
    kept: bool


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file, how it was made and what it gave.

    Attributes:
        settings: settings by which it was made.
        content: bytes of the file.
        finished: bytes of the file as it is written in the end.
        step: measurements of the file.
    """

    settings: Settings
    content: bytes
    finished: bytes
    step: Step


class Search:
    """A search for the best int8 file of one network.

    Args:
        int8_files: makes the files.
        selection_images: float32 `(images, height, width, channels)` in [0, 255], see `inputs`, by which
            steps are judged; no range comes from them.
        mixed: whether layers may stay float.
        agreement: agreement from which on float layers may cost hardly any time and bytes.
        finished: function from a file to the one that is written in the end, whose size and time count.
        judge: compares the files' answers with the float file's.
        say: called with a line of progress now and then.

    Attributes:
        steps: what was tried, once `run` returned.
        best: the best file then.
    """

    def __init__(
        self,
        int8_files: Int8Files,
        selection_images: np.ndarray,
        *,
        mixed: bool = True,
        agreement: float = 0.0,
        finished: Callable[[bytes], bytes] = bytes,
        judge: Judge | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.int8_files, self.selection_images = int8_files, selection_images
        self.mixed, self.agreement = mixed and int8_files.io_dtype != "int8", agreement
        self.finished, self.judge, self.say = finished, judge or ClassJudge(), say
        self.expected = self._answers(int8_files.content)
        self.steps: list[Step] = []

    def run(self) -> bytes:
        """Tries all steps and returns the best file."""
        settings = Settings()
        content = self.int8_files.make(settings)
        finished = self.finished(content)
        (latency_ms,) = self._latencies({"tried": finished}).values()
        step = self._step("ranges from minimum to maximum", content, finished, latency_ms)
        self.best = self.integers = Candidate(settings, content, finished, step)
        self._note(step, True)
        self._try("hard-swish as products", hard_swish=True)
        self._try("normalisation before the first layer", folded=False)
        self._try("biases corrected", bias_corrected=True)
        self._try("ranges without the outermost 0.01 %", method="percentile")
        self._try("ranges of least squared error", method="mse")
        if self.mixed:
            for depth in LAST_LAYERS:
                if lasts := self.int8_files.last_layers(self.best.settings, depth):
                    self._try(f"{_layers(depth)} before the decoding float", floats=lasts)
            firsts = self.int8_files.first_layers(self.best.settings)
            lasts = self.best.settings.floats
            for count in (count for count in FIRST_LAYERS if count < len(firsts)):
                self._try(_kept_float("first", count), floats=(*lasts, *firsts[count - 1]))
            worst = [*self.own_errors()]
            for count in (count for count in WORST_LAYERS if count < len(worst)):
                floats = (*self.best.settings.floats, *worst[:count])
                self._try(_kept_float("worst", count), floats=floats)
        self._try("weights rounded by their inputs", rounded=True)
        return self.best.content

    def own_errors(self) -> dict[str, float]:
        """Error that each layer of the best file adds by itself; see `layer_errors`."""
        images = self.selection_images[:SAMPLE]
        return self.int8_files.own_errors(self.best.content, self.best.settings, images)

    def _try(self, name, **changes):
        """Makes a file with other settings, and keeps it where it is better."""
        settings = dataclasses.replace(self.best.settings, **changes)
        if self._differ(settings):
            self._judge(name, settings, self.int8_files.make(settings))

    def _judge(self, name, settings, content):
        finished = self.finished(content)
        files = {"best": self.best.finished, "tried": finished, "integers": self.integers.finished}
        if self._graph(settings) == self._graph(self.best.settings):
            times = dict.fromkeys(files, 1.0)
        else:
            times = self._latencies(files)
        drift = self.best.step.latency_ms / times["best"]  # of the computer, since the first step
        step = self._step(name, content, finished, drift * times["tried"])
        integers = dataclasses.replace(self.integers.step, latency_ms=drift * times["integers"])
        affordable = not settings.floats or _affordable(step, integers, self.agreement)
        better = affordable and _better(step, self.best.step)
        self._note(step, better)
        if better:
            self.best = Candidate(settings, content, finished, step)
            if not settings.floats:
                self.integers = self.best

    def _latencies(self, files):
        return latency.latencies(files, self.selection_images[0], threads=1)

    def _step(self, name, content, finished, latency_ms) -> Step:
        near = self.judge.fidelity(self._answers(content), self.expected)
        measures = {measure: getattr(near, measure) for measure in self.judge.measures}
        return Step(name, measures, near.error, near.agreement, len(finished), latency_ms, kept=False)

    def _answers(self, content):
        return self.judge.of_file(content, self.selection_images)

    def _note(self, step, kept):
        self.steps.append(dataclasses.replace(step, kept=kept))
        measures = [
            f"{measure.title} {step.measures[name]:.{measure.digits}f}"
            for name, measure in self.judge.measures.items()
        ]
        self.say(f"{step.name}: {', '.join(measures)}, "
                 f"{latency.milliseconds(step.latency_ms)} ms{'' if kept else '; not kept'}")  # fmt: skip

    def _differ(self, settings) -> bool:
        """Whether settings make another file than the best; a graph may have nothing to rewrite."""
        new, old = (
            (self._graph(each), each.method, each.bias_corrected, each.rounded)
            for each in (settings, self.best.settings)
        )
        return new != old

    def _graph(self, settings):
        """The part of the settings that decides on the time that a file takes."""
        return self.int8_files.float_file(settings).content, settings.floats


def _better(new: Step, old: Step) -> bool:
    """Whether error times time is less by a hundredth."""
    return new.error * new.latency_ms < LESS * old.error * old.latency_ms


def _affordable(new: Step, integers: Step, agreement: float) -> bool:
    """Whether float layers cost hardly more time and bytes than none, or integers alone agree too little."""
    cheap = new.latency_ms <= SLOWER * integers.latency_ms and new.size <= LARGER * integers.size
    return cheap or integers.agreement < agreement


def _kept_float(which, count):
    return f"{which} {_layers(count)} float"


def _layers(count):
    return f"{count} layers" if count > 1 else "layer"
