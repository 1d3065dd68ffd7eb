"""From a Keras model to a folder of verified TFLite files and a report."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kvision import input_checks, networks, run_info
from kvision.errors import UserError, naming
from kvision.keras_internals import all_layers
from kvision.spec import Preprocess
from kvision_export import convert, inputs, metadata, report, signatures, verify
from kvision_export.checks import (
    PAGE,
    REPORT,
    check_calibration,
    check_images,
    check_labels,
    check_names,
    check_output,
    choose,
    exported_task,
    floats,
    functional,
)
from kvision_export.choices import ANSWERS, BACKENDS, IO_DTYPES, TARGETS
from kvision_export.files import Job
from kvision_export.judges import OutputJudge, judge_of
from kvision_export.modes import MODES, REFERENCE, UNROLLED, Given, tolerance
from kvision_export.tolerance import Tolerance

PACKAGES = ("kvision", "keras", "tensorflow", "ai_edge_litert", "litert_quantizer")  # in a report


def export(
    model: keras.Model,
    output: str | Path,
    *,
    images: np.ndarray | Mapping[str, np.ndarray],
    labels: np.ndarray | Mapping[str, np.ndarray] | None = None,
    calibration: np.ndarray | Mapping[str, np.ndarray] | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    target: str = "cpu",
    modes: Sequence[str] | None = None,
    backend: str = "litert",
    io_dtype: str | None = None,
    answer: str = "probabilities",
    way: str = "",
    compare: bool = True,
    description: str = "",
    license: str = "",
    remarks: Sequence[str] = (),
    tolerances: Mapping[str, Tolerance] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Writes a folder of `.tflite` files, labels.txt, report.json and report.html.

    The folder is written under a temporary name and then renamed: what was there stays whole until all is
    done.

    Args:
        model: from float32 pixels in [0, 255], `(batch, height, width, channels)`, to probabilities, or to
            the detections of `kvision.layers.NonMaxSuppression`; of any kind, and of the images' size where
            it takes any. A detector's file has the outputs of `kvision.tasks.Detection.exported`, and where
            it takes proposals, these are the second input, float32 `(1, proposals, 4)`.
        output: the folder; all files of an earlier export in it are replaced or removed.
        images: float32 `(images, height, width, channels)` in [0, 255], on which the files are judged; of a
            detector that takes proposals a dict of these as "image" and of "proposals", float32
            `(images, proposals, 4)`, xyxy in pixels of the model's input, 0 where there are fewer.
        labels: integers `(images,)`; of a network that ends in sigmoids 0 or 1 `(images, classes)`, whether
            an image has a class; of one that answers for pixels `(images, height, width)`, 255 where a pixel
            has no class; of a detector a dict of "boxes" `(images, most, 4)`, xyxy in pixels, and "classes"
            `(images, most)`, -1 where there is none, and where they are known "crowd" and "area"
            `(images, most)` and "size" `(images, 2)`, height and width of the images that the boxes lie in
            before they are letterboxed. None where they are not known.
        calibration: such images that give the ranges of int8; half of them choose between its steps. Needed
            for "int8" and "int16x8".
        class_names: written into the files; numbers by default.
        preprocess: normalisation that the model expects of its pixels, which becomes a layer of the files;
            None where it takes them as they are.
        target: what runs the files, one of `TARGETS`; it chooses the defaults of what follows.
        modes: names of `MODES`.
        backend: quantizer that makes the integers, "litert" or "tf".
        io_dtype: dtypes of the input and the output of int8 files, one of `choices.IO_DTYPES`; see
            `io_dtype.set_io_dtype`.
        answer: output of the files: "probabilities", "logits", or "mask": uint8, the most probable class of
            each pixel; of a detector always its detections.
        way: another form of the file, one of `Exported.ways`: of a captioner "one_shot", a file that finds
            all words of a caption by itself; of a classifier of clips "streaming", one that takes one frame
            after the other.
        compare: whether the report has TFLiteConverter's own int8 file too.
        description, license: texts for the files' metadata.
        remarks: sentences on the images, for the report.
        tolerances: tolerances by mode, in place of `tolerance(mode)`.
        say: called with a line of progress now and then.

    Returns:
        The report, as in report.json; its `doubts` say in sentences what the labelled images speak for
            against the Keras model itself.

    Raises:
        UserError: an unknown mode or target, images, labels or names that do not fit, a network with NaN in
            its output, or that cannot be converted, or whose file has a fault or another answer than it.
    """
    default_modes, default_io_dtype, mixed = choose("target", target, TARGETS)
    given_io_dtype = io_dtype
    modes, io_dtype = [*dict.fromkeys(modes or default_modes)], io_dtype or default_io_dtype
    for mode in modes:
        choose("mode", mode, MODES)
    choose("backend", backend, dict.fromkeys(BACKENDS))
    choose("io_dtype", io_dtype, dict.fromkeys(IO_DTYPES))
    choose("answer", answer, dict.fromkeys(ANSWERS))
    images = floats("images", images)
    model = functional(model, images)
    task_type = exported_task(model)
    if not task_type.images:
        if given_io_dtype not in (None, "float32"):
            raise UserError(
                f"`io_dtype`: {model.name} takes series in their own units, float32; got {io_dtype!r}."
            )
        io_dtype = "float32"
    classes = task_type.classes_of(model)
    if answer != ANSWERS[0] and task_type.output != ANSWERS[0]:
        raise UserError(f"`answer`: the files of {model.name} have {task_type.output}; got {answer!r}.")
    answer = answer if task_type.output == ANSWERS[0] else task_type.output
    if answer == "mask" and len(model.output_shape) == 2:
        raise UserError(
            f"`answer`: {model.name} answers for whole {task_type.kind}s, and a mask is of pixels: give "
            "probabilities or logits."
        )
    if way and way not in task_type.ways:
        raise UserError(f"`{way}` is not for {task_type.name}, which {model.name} learned.")
    integers = [mode for mode in modes if MODES[mode].form == UNROLLED]
    if way and integers:
        raise UserError(
            f"`{way}` files have loops or states, which stay in floats: their modes are float32, float16 and "
            f"dynamic; got {integers[0]}."
        )
    if target == "edgetpu" and any(isinstance(layer, keras.layers.RNN) for layer in all_layers(model)):
        raise UserError(f"The Edge TPU has no recurrent layers, and {model.name} has some: another `target`?")
    check_images("images", images, model)
    calibrating = None
    if needs := [mode for mode in modes if MODES[mode].calibrated]:
        if calibration is None:
            raise UserError(f"{needs[0]} needs `calibration` images.")
        calibrating = floats("calibration", calibration)
        check_images("calibration", calibrating, model)
        check_calibration(inputs.pixels(calibrating), task_type.images)
    class_names, own_preprocess = check_names(class_names, classes), networks.preprocess_of(model)
    bare, model = model, networks.normalized(model, preprocess) if preprocess else model
    task = task_type(class_names=tuple(class_names)).fitted(bare)
    model = task.exported(model)
    parts = task.signatures(model, way)
    judge = judge_of(task, parts)
    chooser = judge if len(parts) == 1 else OutputJudge()  # between the steps of int8
    if labels is not None:
        labels = check_labels(labels, len(images), bare, task.target, classes)
    output = Path(output).resolve()
    check_output(output)
    tmp_path = output.with_name(f".{output.name}.part")
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir(parents=True)

    try:
        expected = judge.of_model(model, images)
        doubts, unchecked = [], []
        if isinstance(labels, np.ndarray) and task.one_class and task.input_rank == 4:
            doubts, unchecked = input_checks.find(
                lambda pixels: bare.predict(pixels, verbose=0),
                images,
                labels,
                expected.probabilities,
                own=own_preprocess is not None,
                given=preprocess,
            )
        elif own_preprocess is None and task.images:
            unchecked = [input_checks.unchecked(preprocess, networks.image_shape(model)[-1])]
        say(f"converting {model.name}")
        forms = [*dict.fromkeys([MODES[REFERENCE].form, *(MODES[mode].form for mode in modes)])]
        if len(parts) > 1 and calibrating is not None:  # parts with a state, see `signatures.make`
            forms = [*dict.fromkeys([*forms, MODES["dynamic"].form])]
        if compare and any(MODES[mode].integers for mode in modes) and len(parts) == 1:
            forms.append(convert.PEER)
        calibrated = calibrating if convert.PEER in forms else None
        by_part = {name: convert.files(part, forms, calibrated, task.output) for name, part in parts.items()}
        converted = signatures.joined(by_part)
        if {*forms} - {*converted}:
            say("TFLiteConverter by itself makes no int8 file of this network to compare with")
        about = metadata.About(
            name=model.name,
            description=" ".join(filter(None, [description, task.about])),
            license=license,
            labels=class_names,
            channels=networks.image_shape(model)[-1],
            size=networks.image_shape(model)[-3:-1] if task.images else (),
            frames=networks.image_shape(model)[1] if task.input_rank == 5 else 0,
            proposals=networks.proposals_of(model),
            preprocess=networks.preprocess_of(model),
            answer=answer,
            activation=task.activation,
            dense=task.rank == 4,
            tensors=task.tensors,
        )
        job = Job(converted, images, labels, expected, judge, task, about, target, say)
        given = Given(
            forms=converted,
            images=images,
            calibration=images[:0] if calibrating is None else calibrating,
            backend=backend,
            io_dtype=io_dtype,
            pixels=task.images,
            mixed=mixed,
            finished=job.finished,
            judge=chooser,
            tolerance=Tolerance(),
            say=say,
        )
        files = []
        for mode in modes:
            bounds = (tolerances or {}).get(mode) or tolerance(mode)
            made = signatures.make(mode, by_part, dataclasses.replace(given, tolerance=bounds))
            files.append(job.write(mode, made, tmp_path / f"{model.name}_{mode}.tflite", bounds))
        if convert.PEER in converted:
            files.append(job.peer())
        files = job.advised(files)
        with naming(tmp_path / run_info.LABELS):
            (tmp_path / run_info.LABELS).write_text("\n".join(class_names) + "\n", encoding="utf-8")
        keras_accuracy = None if labels is None else task.compare(expected, expected, labels)
        count = None if calibrating is None else len(calibrating)
        remarks = [*remarks, *verify.remarks(len(images), labels is not None, count, type(task)), *unchecked]
        results = {
            "model": model.name,
            "task": task.name,
            "kind": task.kind,
            "score": task.score,
            "answer": answer,
            "about": judge.about,
            "measures": {name: measure._asdict() for name, measure in judge.measures.items()},
            "steps": {
                "error": chooser.about["error"],
                "measures": {name: measure._asdict() for name, measure in chooser.measures.items()},
            },
            "target": target,
            "preprocess": about.preprocess and dataclasses.asdict(about.preprocess),
            "images": len(images),
            "calibration_images": count,
            "keras": keras_accuracy and dataclasses.asdict(keras_accuracy),
            "remarks": remarks,
            "doubts": doubts,
            "files": [dataclasses.asdict(file) for file in files],
            "versions": package_versions(),
        }
        text = json.dumps(_finite(results), indent=2, allow_nan=False) + "\n"
        with naming(tmp_path / REPORT):
            (tmp_path / REPORT).write_text(text, encoding="utf-8")
        with naming(tmp_path / PAGE):
            report.write(tmp_path / PAGE, results, task, inputs.pixels(images), labels, expected, job.worst)
        removed = names_in(output) - names_in(tmp_path)
        replace_folder(tmp_path, output)
        if removed:
            say(f"removed files of the earlier export in '{output}': {', '.join(sorted(removed))}")
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
    return results


def package_versions() -> dict[str, str]:
    """Versions of the packages in use, as they state them.

    Only a module that states none is looked up among the installed distributions, whose names vary
    (tensorflow, tensorflow-cpu, tf-nightly); one that is not found there is left out.
    """
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            module = importlib.import_module(name)
            versions[name] = getattr(module, "__version__", None) or importlib.metadata.version(name)
    return versions


def names_in(folder: Path) -> set[str]:
    """Names of the files in a folder; empty if the folder does not exist."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def replace_folder(new: Path, output: Path) -> None:
    """Replaces the folder `output` by the folder `new`; where that fails, it is restored."""
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
