"""The file of each mode, made and measured."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kvision.errors import UserError, naming
from kvision.tasks import Accuracy, Exported
from kvision_export import answers, convert, flatbuffer, latency, metadata, modes
from kvision_export.advice import advice, warnings_of
from kvision_export.census import Census, census_of
from kvision_export.judges import Judge
from kvision_export.modes import Made
from kvision_export.search import Step
from kvision_export.tolerance import Tolerance
from kvision_export.versions import set_versions

ALIKE = 0.9  # agreement that every float file has


@dataclasses.dataclass(frozen=True)
class File:
    """Measurements of one file.

    Attributes:
        mode: name of its mode.
        file: name of the file; "" where it is only compared with.
        size: number of bytes.
        accuracy: metrics against the labels; None without labels.
        fidelity: distance from the Keras model, see `Judge.fidelity`.
        latency_ms: milliseconds for one image by number of threads: the float32 file's times the ratio to it,
            measured in turns.
        float_latency_ms: the float32 file's median, the same for all files.
        refusal: what is outside its mode's tolerance; "" where nothing is.
        advice: sentences on what is inside and what it was worth.
        warnings: sentences on what it is bad at.
        census: contents of the file.
        steps: steps of the search for an int8 file.
        layers: signal over the error that each layer of integer weights adds by itself, in dB, the worst
            first.
    """

    mode: str
    file: str
    size: int
    accuracy: Accuracy | None
    fidelity: Any
    latency_ms: dict[int, float]
    float_latency_ms: dict[int, float]
    refusal: str
    advice: str
    warnings: list[str]
    census: Census
    steps: list[Step] = dataclasses.field(default_factory=list)
    layers: dict[str, float] = dataclasses.field(default_factory=dict)


class Job:
    """The files of one network.

    Args:
        converted: the converter's files by their forms.
        images: images on which files are judged, see `inputs`.
        labels: of the images, see `exporter.export`; None where they are not known.
        expected: the Keras model's answers on the images.
        judge: compares answers.
        task: what the network learned.
        about: description of the network, for the files' metadata.
        target: what runs the files, see `choices.TARGETS`.
        say: called with a line of progress now and then.
    """

    def __init__(
        self,
        converted: Mapping[str, bytes],
        images: np.ndarray,
        labels,
        expected,
        judge: Judge,
        task: Exported,
        about: metadata.About,
        target: str,
        say: Callable[[str], None],
    ):
        self.converted, self.images, self.labels = converted, images, labels
        self.task, self.about, self.target, self.say = task, about, target, say
        self.judge = judge
        floats = judge.of_file(converted["float32"], images)
        near = judge.fidelity(floats, expected)
        if not (near.largest_difference <= judge.broken and near.agreement >= ALIKE):
            raise UserError(
                f"The float32 file of {about.name} is not the Keras model: {judge.differs} "
                f"{near.largest_difference:g}, and it agrees on {100 * near.agreement:.1f} %."
            )
        self.float_file = answers.ended(converted["float32"], about.answer)  # to which times are relative
        self.expected = judge.expected(expected, floats)
        self.worst: dict = {}  # by mode, on the images where its file differs most
        self.float_latency_ms: dict[int, float] = {}

    def finished(self, content: bytes) -> bytes:
        """A file as it is written, with the end that is asked for and its metadata."""
        model = flatbuffer.read(content)
        answers.end_in(model, self.about.answer)
        set_versions(model)
        flatbuffer.shorten_names(model)
        return metadata.write(model, self.about)

    def write(self, mode: str, made: Made, path: Path, bounds: Tolerance) -> File:
        """Writes a file with its metadata, and measures it."""
        content = self.finished(made.content)
        with naming(path):
            path.write_bytes(content)
        file = self._measure(mode, content, bounds)
        return dataclasses.replace(file, file=path.name, steps=made.steps, layers=made.layers)

    def peer(self) -> File:
        """Measures TFLiteConverter's own int8 file, which is fed as its own input scale says."""
        content = answers.ended(self.converted[convert.PEER], self.about.answer)
        return self._measure(convert.PEER, content, modes.tolerance("int8"), pixels=False)

    def advised(self, files: list[File]) -> list[File]:
        """The files with their advice, which compares them with each other."""
        sizes = [file.size for file in files if file.mode == modes.REFERENCE] or [
            len(self.converted["float32"])
        ]
        written, images, task = [file for file in files if file.file], len(self.images), type(self.task)
        return [
            dataclasses.replace(file, advice=advice(file, written, sizes[0], self.target, images, task))
            for file in files
        ]

    def _measure(self, mode, content, bounds, pixels=True) -> File:
        self.say(f"measuring {mode}")
        census = census_of(content)
        if census.faults and mode != convert.PEER:
            raise UserError(f"The {mode} file of {self.about.name}: {' '.join(census.faults)}")
        file_answers = self.judge.of_file(content, self.images, pixels)
        fidelity = self.judge.fidelity(file_answers, self.expected)
        self.worst[mode] = file_answers.of(fidelity.worst)
        accuracy = drop = None
        if self.labels is not None:
            accuracy = self.task.compare(file_answers, self.expected, self.labels)
            drop = accuracy.drop
        files = {"float": self.float_file, "measured": content}
        latency_ms = {}
        for threads in (1, 2):
            times = latency.latencies(files, self.images[0], threads, self.judge.open)
            float_ms = self.float_latency_ms.setdefault(threads, times["float"])  # the same for all files
            latency_ms[threads] = float_ms * times["measured"] / times["float"]
        return File(
            mode=mode,
            file="",
            size=len(content),
            accuracy=accuracy,
            fidelity=fidelity,
            latency_ms=latency_ms,
            float_latency_ms=self.float_latency_ms,
            refusal=bounds.refusal(
                fidelity.largest_difference, fidelity.agreement, drop, self.task.score, self.judge.differs
            ),
            advice="",
            warnings=warnings_of(mode, census, self.target, latency_ms[1] / self.float_latency_ms[1]),
            census=census,
        )
