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
REPORT, PAGE = "report.json", "report.html"
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
    convert.PEER: "What TFLiteConverter makes by itself, for comparison.",
}
SAMPLE = 8  # images by which layers are ranked
BROKEN = 1e-3  # difference of a probability that no float file has
PACKAGES = ("kvision", "keras", "tensorflow", "ai-edge-litert", "litert-quantizer")


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
        ValueError: an unknown mode or target, images that do not fit, a network that cannot be converted, or
            whose file has a fault or another answer than the Keras model.
    """
    default_modes, default_ends, mixed = _choose("target", target, TARGETS)
    modes, ends = list(modes or default_modes), ends or default_ends
    for mode in modes:
        _choose("mode", mode, dict.fromkeys(MODES))
    _choose("backend", backend, dict.fromkeys(quantize.BACKENDS))
    _choose("ends", ends, dict.fromkeys(("uint8", "float32", "int8")))
    check_model(model)
    images = check_images("images", images, model)
    if needs := [mode for mode in modes if mode in ("int8", "int16x8")]:
        if calibration is None:
            raise ValueError(f"{needs[0]} needs `calibration` images.")
        calibration = check_images("calibration", calibration, model)
        check_calibration(calibration)
    classes = model.output_shape[-1]
    class_names = list(class_names or map(str, range(classes)))
    if len(class_names) != classes or any(len(name.splitlines()) != 1 for name in class_names):
        raise ValueError(f"`class_names` must be {classes} names of a line each; got {len(class_names)}.")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"`labels` must be {len(images)} numbers from 0 to {classes - 1}.")
    output = Path(output).resolve()
    check_output(output)
    beside = output.with_name(f".{output.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        expected = model.predict(images, verbose=0)
        if not np.allclose(expected.sum(-1), 1, atol=1e-3):
            raise ValueError(f"{model.name} must end in probabilities: a softmax over its classes.")
        say(f"converting {model.name}")
        asked = ["float32", *(mode for mode in ("float16", "dynamic") if mode in modes)]
        converted = convert.convert_apart(model, asked)
        if compare and "int8" in modes:
            try:
                converted |= convert.convert_apart(model, [convert.PEER], calibration)
            except ValueError as error:
                say(f"no file of TFLiteConverter to compare with: {error}")
        about = metadata.About(
            name=model.name,
            description=description,
            licence=licence,
            labels=class_names,
            channels=model.input_shape[-1],
            size=model.input_shape[1:3],
        )
        job = _Job(converted, images, labels, expected, about, say)
        files = []
        for mode in modes:
            content, found = job.content(mode, calibration, backend, ends, mixed)
            bounds = (tolerances or {}).get(mode) or tolerance(mode)
            files.append(job.write(mode, content, beside / f"{model.name}_{mode}.tflite", bounds, **found))
        if convert.PEER in converted:
            files.append(job.peer())
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
        text = json.dumps(_finite(found), indent=2, allow_nan=False) + "\n"
        (beside / REPORT).write_text(text, encoding="utf-8")
        pictures = {i: images[i] for file in files for i in file.fidelity.worst}
        report.write(beside / PAGE, found, pictures, labels, expected, job.answers, class_names)
        replace_folder(beside, output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return found


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


def check_model(model: keras.Model) -> None:
    """A ValueError for a model that is no classifier of images of a fixed size."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise ValueError(f"{model.name} must have one input and one output of shape (batch, classes).")
    shape = model.input_shape
    if len(shape) != 4 or None in shape[1:] or shape[-1] not in (1, 3):
        raise ValueError(
            f"{model.name} must take images of a fixed size with 1 or 3 channels; its input is {shape}."
        )


def check_images(name: str, images, model: keras.Model) -> np.ndarray:
    """The images as float32; a ValueError where they are no pixels in [0, 255] of the model's size."""
    images = np.asarray(images, np.float32)
    if len(images) == 0 or images.shape[1:] != model.input_shape[1:]:
        raise ValueError(
            f"`{name}` must be images of shape {model.input_shape[1:]}; got an array of {images.shape}."
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(f"`{name}` must be pixels in [0, 255]; got [{low:g}, {high:g}].")
    return images


def check_calibration(images: np.ndarray) -> None:
    """A ValueError for images that would give ranges of no use."""
    if len(images) < 4:
        raise ValueError(f"Calibration needs at least 4 images (64 are usual); got {len(images)}.")
    if np.ptp(images, axis=0).max() == 0:
        raise ValueError("The calibration images are all the same.")
    if images.max() <= 1:
        raise ValueError(f"Calibration images must be pixels in [0, 255]; got [0, {images.max():g}].")


def check_output(output: Path) -> None:
    """A ValueError for what is neither a new folder, nor empty, nor an earlier export alone."""
    if output.is_file() or (
        output.is_dir() and not {path.name for path in output.iterdir()} <= _ours(output)
    ):
        raise ValueError(f"'{output}' is neither empty nor an earlier export: give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)


def _ours(output) -> set[str]:
    """The names of the files that an earlier export left in a folder."""
    try:
        files = json.loads((output / REPORT).read_text(encoding="utf-8"))["files"]
        return {REPORT, PAGE, runs.LABELS, *(file["file"] for file in files)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def replace_folder(new: Path, output: Path) -> None:
    """Puts a folder in the place of another, which comes back where that fails."""
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        os.replace(output, old)
    try:
        os.replace(new, output)
    except OSError:
        if old.exists():
            os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _finite(value):
    """The same for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


class _Job:
    """The files of one network."""

    def __init__(self, converted, images, labels, expected, about, say):
        self.converted, self.images, self.labels, self.about, self.say = (
            converted,
            images,
            labels,
            about,
            say,
        )
        floats = verify.answers(converted["float32"], images)
        off = float(np.abs(floats.probabilities - expected).max())
        if not off <= BROKEN:
            raise ValueError(f"The float32 file of {about.name} differs from the Keras model by {off:g}.")
        self.expected = verify.Answers(expected, floats.logits)
        self.answers: dict[str, verify.Answers] = {}

    def content(self, mode, calibration, backend, ends, mixed) -> tuple[bytes, dict]:
        """The file of a mode, and what else is known of it: `steps` and `layers` of an int8 one."""
        floats = self.converted["float32"]
        if mode in self.converted:
            return self.converted[mode], {}
        if mode == "int4":
            return quantize.four_bits(floats), {}
        if mode == "int16x8":
            floats, _ = split_hard_swish(floats)
            ranges = Ranges(floats, calibration).find("minmax")
            return quantize.quantize(floats, ranges, backend=backend, bits=16), {}
        half = len(calibration) // 2
        search = Search(
            floats, calibration[:half], calibration[half:], backend=backend, ends=ends, mixed=mixed
        )
        content = search.run(self.say)
        return content, {"steps": search.steps, "layers": search.worst_layers(SAMPLE)}

    def write(self, mode: str, content: bytes, path: Path, bounds: Tolerance, **found) -> File:
        """Writes a file with its metadata, and measures it."""
        content = metadata.add(census.set_versions(content), self.about)
        path.write_bytes(content)
        return dataclasses.replace(self._measure(mode, content, bounds), file=path.name, **found)

    def peer(self) -> File:
        """Measures TFLiteConverter's own int8 file, which is fed as its own input scale says."""
        return self._measure(convert.PEER, self.converted[convert.PEER], tolerance("int8"), pixels=False)

    def _measure(self, mode, content, bounds, pixels=True) -> File:
        self.say(f"measuring {mode}")
        taken = census.of(content)
        if taken.faults and mode != convert.PEER:
            raise ValueError(f"The {mode} file of {self.about.name}: {' '.join(taken.faults)}")
        found = self.answers[mode] = verify.answers(content, self.images, pixels)
        near = verify.fidelity(found, self.expected)
        right = None
        if self.labels is not None:
            right = verify.accuracy(found.probabilities, self.labels, self.expected.probabilities)
        files = {"this": content, "float": self.converted["float32"]}
        times = {threads: verify.latencies(files, self.images[0], threads) for threads in (1, 2)}
        latency_ms = {threads: of["this"] for threads, of in times.items()}
        float_ms = {threads: of["float"] for threads, of in times.items()}
        return File(
            mode=mode,
            file="",
            size=len(content),
            accuracy=right,
            fidelity=near,
            latency_ms=latency_ms,
            float_latency_ms=float_ms,
            accepted=bounds.accepts(near.largest_difference, near.agreement, right and right.drop),
            advice=ADVICE[mode],
            warnings=warnings_of(mode, taken, latency_ms[1] / float_ms[1], content),
            census=taken,
        )


def warnings_of(mode: str, taken: census.Census, share: float, content: bytes) -> list[str]:
    """Sentences on what a file is bad at.

    Args:
        mode: of the file.
        taken: its census.
        share: its time of the float32 file's.
        content: the file.
    """
    warnings = []
    if share > 1.1:
        warnings.append(f"On this processor it takes {share:.1f} times as long as float32.")
    if mode == "int16x8":
        warnings.append("CPUs have no fast kernels for it.")
    elif {*taken.left_out} - {"SOFTMAX", "QUANTIZE"}:
        kinds = ", ".join(f"{count} {name}" for name, count in taken.left_out.items())
        warnings.append(f"XNNPACK leaves {kinds} to slower kernels.")
    if metadata.input_type(content) == "int8":
        warnings.append("MediaPipe takes no int8 input.")
    return warnings


def _choose(what, value, known):
    if value not in known:
        raise ValueError(f"Unknown {what} {value!r}; known are {', '.join(known)}.")
    return known[value]
