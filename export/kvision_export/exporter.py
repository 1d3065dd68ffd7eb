"""From a Keras model to a folder of verified TFLite files and a report."""

import dataclasses
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kvision import runs
from kvision_export import census, convert, metadata, quantize, report, verify
from kvision_export.int8 import Search, Step
from kvision_export.ranges import Ranges
from kvision_export.rewrite import split_hard_swish
from kvision_export.verify import Accuracy, Fidelity, Tolerance

MODES = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
REPORT = "report.json"
TARGETS = {  # modes by default, ends of int8 files, whether their layers may be float
    "cpu": (("float32", "int8"), "uint8", True),
    "gpu": (("float32", "float16"), "uint8", True),
    "npu": (("int8",), "int8", False),
    "edgetpu": (("int8",), "int8", False),
}
ADVICE = {
    "float32": "The reference; for phones' GPUs and CPUs where size is no matter.",
    "float16": "For GPUs and Apple's Neural Engine; half the size, computes like float32 on CPUs.",
    "dynamic": "For networks of dense layers and no calibration images; int8 weights, float activations.",
    "int8": "For CPUs, NPUs and the Edge TPU: the smallest and fastest.",
    "int16x8": "Where int8 is too coarse and the target has kernels for it (some NPUs).",
    "int4": "The smallest dense layers; for networks that mostly consist of them.",
}
SAMPLE = 8  # images by which layers are ranked


@dataclasses.dataclass(frozen=True)
class File:
    """What was measured of one file.

    Attributes:
        mode: how it was made.
        file: its name; "" of one that is only compared with.
        size: in bytes.
        accuracy: None where there are no labels.
        fidelity: to the Keras model.
        latency_ms: median for one image by number of threads.
        float_latency_ms: of the float32 file, in turns with this one.
        accepted: whether it is within its mode's tolerance.
        advice: when to use it.
        warnings: sentences.
        census: of the file.
        steps: of int8: what was tried.
        layers: of int8: what each layer adds to the error, in dB, the worst first.
    """

    mode: str
    file: str
    size: int
    accuracy: Accuracy | None
    fidelity: Fidelity
    latency_ms: dict[int, float]
    float_latency_ms: dict[int, float]
    accepted: bool
    advice: str
    warnings: list[str]
    census: census.Census
    steps: list[Step] = dataclasses.field(default_factory=list)
    layers: list[tuple[str, float]] = dataclasses.field(default_factory=list)


def export(
    model: keras.Model,
    output: str | Path,
    *,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    calibration: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    target: str = "cpu",
    modes: Sequence[str] | None = None,
    backend: str = "litert",
    ends: str | None = None,
    compare: bool = True,
    description: str = "",
    licence: str = "",
    tolerances: Mapping[str, Tolerance] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Writes a folder of `.tflite` files, labels.txt, report.json and report.html.

    The folder is written beside and then renamed: what was there stays whole until all is done.

    Args:
        model: from float32 pixels in [0, 255], `(batch, height, width, channels)`, to probabilities.
        output: the folder; an earlier export in it is replaced.
        images: float32 `(images, height, width, channels)` in [0, 255], on which the files are judged.
        labels: integers `(images,)`; None where they are not known.
        calibration: such images that give the ranges of int8; half of them choose between its steps. Needed
            for "int8" and "int16x8".
        class_names: written into the files; numbers by default.
        target: one of `TARGETS`, which chooses what follows.
        modes: of `MODES`.
        backend: "litert" or "tf": which quantizer makes the integers.
        ends: of int8 files: "uint8", "float32" or "int8", see `quantize.set_ends`.
        compare: whether TFLiteConverter's own int8 file stands beside in the report.
        description, licence: written into the files.
        tolerances: by mode, in place of `tolerance(mode)`.
        say: is given a line of progress now and then.

    Returns:
        The report, as in report.json.

    Raises:
        ValueError: an unknown mode or target, images that do not fit, a network that cannot be converted.
    """
    default_modes, default_ends, mixed = _choose("target", target, TARGETS)
    modes, ends = list(modes or default_modes), ends or default_ends
    for mode in modes:
        _choose("mode", mode, dict.fromkeys(MODES))
    _choose("backend", backend, dict.fromkeys(quantize.BACKENDS))
    _choose("ends", ends, dict.fromkeys(("uint8", "float32", "int8")))
    check_images("images", images, model)
    quantized = [mode for mode in modes if mode in ("int8", "int16x8")]
    if quantized:
        if calibration is None:
            raise ValueError(f"{quantized[0]} needs `calibration` images.")
        check_images("calibration", calibration, model)
        check_calibration(calibration)
    output = Path(output)
    check_output(output)
    class_names = class_names or [str(i) for i in range(model.output_shape[-1])]
    beside = output.with_name(f".{output.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        expected = model.predict(images, verbose=0)
        compare = compare and "int8" in modes
        asked = ["float32", *({"float16", "dynamic"} & {*modes}), *([convert.PEER] * compare)]
        say(f"converting {model.name}")
        converted = convert.convert_apart(model, asked, calibration if compare else ())
        about = metadata.About(
            name=model.name,
            description=description,
            licence=licence,
            labels=class_names,
            channels=model.input_shape[-1],
            size=model.input_shape[1:3],
        )
        job = _Job(converted, images, labels, expected, calibration, backend, ends, mixed, about, say)
        files = []
        for mode in modes:
            name = f"{model.name}_{mode}.tflite"
            files.append(job.make(mode, beside / name, (tolerances or {}).get(mode) or tolerance(mode)))
        if compare:
            files.append(job.peer(beside / ".peer.tflite"))
        (beside / runs.LABELS).write_text("\n".join(class_names) + "\n", encoding="utf-8")
        found = {
            "model": model.name,
            "target": target,
            "images": len(images),
            "keras": None
            if labels is None
            else dataclasses.asdict(verify.accuracy(expected, labels, expected)),
            "files": [dataclasses.asdict(file) for file in files],
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
        (beside / REPORT).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        pictures = {i: images[i] for file in files for i in file.fidelity.worst}
        report.write(beside / "report.html", found, pictures, labels, expected, job.answers, class_names)
        if output.exists():
            shutil.rmtree(output)
        os.replace(beside, output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return found


PACKAGES = ("kvision", "keras", "tensorflow", "ai-edge-litert", "litert-quantizer")


def tolerance(
    mode: str,
    *,
    difference: float = 1e-4,
    float16: float = 0.995,
    agreement: float = 0.97,
    drop: float = 0.005,
) -> Tolerance:
    """What a mode has to keep: float32 a difference, float16 an agreement, others an agreement or a drop."""
    if mode == "float32":
        return Tolerance(difference=difference)
    if mode == "float16":
        return Tolerance(agreement=float16)
    return Tolerance(agreement=agreement, drop=drop)


def check_images(name: str, images: np.ndarray, model: keras.Model) -> None:
    """A ValueError for images that are not pixels in [0, 255] of the model's size."""
    if len(images) == 0 or images.shape[1:] != model.input_shape[1:]:
        raise ValueError(
            f"`{name}` must be images of shape {model.input_shape[1:]}; got an array of {images.shape}."
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(f"`{name}` must be pixels in [0, 255]; got [{low:g}, {high:g}].")


def check_calibration(images: np.ndarray) -> None:
    """A ValueError for images that would give ranges of no use."""
    if len(images) < 4:
        raise ValueError(f"Calibration needs at least 4 images (64 are usual); got {len(images)}.")
    if np.ptp(images, axis=0).max() == 0 or np.ptp(images) == 0:
        raise ValueError("The calibration images are all the same.")
    if images.max() <= 1:
        raise ValueError(f"Calibration images must be pixels in [0, 255]; got [0, {images.max():g}].")


def check_output(output: Path) -> None:
    """A ValueError for a folder that is neither new nor empty nor an earlier export."""
    if output.exists() and not (output / REPORT).is_file() and (output.is_file() or any(output.iterdir())):
        raise ValueError(f"'{output}' is neither empty nor an earlier export: give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)


class _Job:
    """The files of one network."""

    def __init__(self, converted, images, labels, expected, calibration, backend, ends, mixed, about, say):
        self.converted, self.images, self.labels = converted, images, labels
        self.calibration, self.backend, self.ends, self.mixed = calibration, backend, ends, mixed
        self.about, self.say = about, say
        floats = verify.answers(converted["float32"], images)
        self.expected = verify.Answers(expected, floats.logits)
        self.answers: dict[str, verify.Answers] = {}

    def make(self, mode: str, path: Path, bounds: Tolerance) -> File:
        """Writes a file and measures it."""
        steps, layers, ends = [], [], "float32"
        if mode in self.converted:
            content = self.converted[mode]
        elif mode == "int8":
            half = len(self.calibration) // 2
            search = Search(
                self.converted["float32"], self.calibration[:half], self.calibration[half:],
                backend=self.backend, ends=self.ends, mixed=self.mixed,
            )  # fmt: skip
            content, ends = search.run(self.say), self.ends
            steps, layers = search.steps, search.worst_layers(SAMPLE)
        elif mode == "int16x8":
            floats, _ = split_hard_swish(self.converted["float32"])
            found = Ranges(floats, self.calibration).find("minmax")
            content = quantize.quantize(floats, found, backend=self.backend, bits=16)
        else:
            content = quantize.four_bits(self.converted["float32"])
        content = census.set_versions(content)
        path.write_bytes(metadata.add(content, self.about))
        return self._measure(mode, path, bounds, steps, layers, ends)

    def peer(self, path: Path) -> File:
        """Measures TFLiteConverter's own int8 file."""
        path.write_bytes(self.converted[convert.PEER])
        file = self._measure(convert.PEER, path, tolerance("int8"), [], [], "uint8")
        path.unlink()
        return dataclasses.replace(file, file="")

    def _measure(self, mode, path, bounds, steps, layers, ends) -> File:
        self.say(f"measuring {mode}")
        content = path.read_bytes()
        taken = census.take(path)
        if taken.faults:
            raise ValueError(f"{path.name}: {' '.join(taken.faults)}")
        found = self.answers[mode] = verify.answers(content, self.images)
        near = verify.fidelity(found, self.expected)
        right = None
        if self.labels is not None:
            right = verify.accuracy(found.probabilities, self.labels, self.expected.probabilities)
        files = {"this": content, "float": self.converted["float32"]}
        times = {threads: verify.latencies(files, self.images[0], threads) for threads in (1, 2)}
        latency_ms = {threads: of["this"] for threads, of in times.items()}
        float_ms = {threads: of["float"] for threads, of in times.items()}
        warnings = []
        if latency_ms[1] > 1.1 * float_ms[1]:
            warnings.append(
                f"On this processor it takes {latency_ms[1] / float_ms[1]:.1f} times as long as float32."
            )
        if len({*taken.left_out} - {"SOFTMAX"}) and mode not in ("int16x8",):
            kinds = ", ".join(f"{count} {name}" for name, count in taken.left_out.items())
            warnings.append(f"XNNPACK leaves {kinds} to slower kernels.")
        if mode == "int16x8":
            warnings.append("CPUs have no fast kernels for it.")
        if ends == "int8":
            warnings.append("MediaPipe takes no int8 input.")
        return File(
            mode=mode,
            file=path.name,
            size=len(content),
            accuracy=right,
            fidelity=near,
            latency_ms=latency_ms,
            float_latency_ms=float_ms,
            accepted=bounds.accepts(near.largest_difference, near.agreement, right and right.drop),
            advice=ADVICE.get(mode, "What TFLiteConverter makes by itself."),
            warnings=warnings,
            census=taken,
            steps=steps,
            layers=layers,
        )


def _choose(what, value, known):
    if value not in known:
        raise ValueError(f"Unknown {what} {value!r}; known are {', '.join(known)}.")
    return known[value]
