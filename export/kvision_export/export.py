"""kvision-export: writes quantized TFLite files of a network and measures them.

    kvision-export --model=runs/demo --quantize=float32,float16,dynamic,int8

Each file takes one image of fixed size: the float ones float32 pixels in [0, 255], the int8 one uint8
pixels. Each gives float32 probabilities. Each is then compared with the Keras model on held-out
images; one that is outside its mode's tolerance ends the command with exit code 1. Beside the files
lie labels.txt and report.json.
"""

import dataclasses
import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import numpy as np
import rich.console
import rich.table
from absl import flags

from kvision import _cli, runs
from kvision.data.sources import FORMS
from kvision_export.convert import convert
from kvision_export.quantize import convert_int8
from kvision_export.verify import Measured, Tolerance, accuracy, measure

MODES = ("float32", "float16", "dynamic", "int8")
REPORT = "report.json"

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model", None, "A run folder, a .keras file, or a name that kvision-info lists.", required=True
)
flags.DEFINE_string("weights", None, f"Of a name: {runs.WEIGHTS}.")
flags.DEFINE_integer("image_size", None, "Height and width in pixels, for a name.", 1)
flags.DEFINE_list("quantize", "float32,int8", f"Any of {', '.join(MODES)}.")
flags.DEFINE_string(
    "calibration", None, f"{FORMS}; a run folder's own by default. Its training images give the int8 ranges, "
    "its held-out ones the report."
)  # fmt: skip
flags.DEFINE_float("val_fraction", 0.2, "Share held out where the dataset has no split of its own.")
flags.DEFINE_bool("strict", False, "End at a file that is no image.")
flags.DEFINE_integer("calibration_images", 100, "How many images give the int8 ranges.", 2)
flags.DEFINE_integer("images", 500, "How many held-out images the files are compared on, at the most.", 1)
flags.DEFINE_float("max_difference", 1e-4, "Of a float32 file's probabilities.", 0)
flags.DEFINE_float("min_agreement_float16", 0.995, "With the Keras model's first class.", 0, 1)
flags.DEFINE_float("min_agreement", 0.97, "The same for dynamic and int8, or else --max_drop.", 0, 1)
flags.DEFINE_float("max_drop", 0.5, "Points of top-1 that dynamic and int8 may lose.", 0, 100)
flags.DEFINE_string("output", None, "The folder; RUN/export or exports/NAME by default.")


def main(positional):
    """Exports by the flags; returns the exit code."""
    with _cli.user_errors():
        if positional:
            raise ValueError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        if unknown := [mode for mode in FLAGS.quantize if mode not in MODES]:
            raise ValueError(f"`--quantize`: unknown mode {unknown[0]!r}; known are {', '.join(MODES)}.")
        opened = runs.open_model(FLAGS.model, FLAGS.weights, FLAGS.image_size)
        output = open_output(opened)
        images, labels = load_images(opened, "val", FLAGS.images)
        calibration = (
            load_images(opened, "train", FLAGS.calibration_images)[0] if "int8" in FLAGS.quantize else None
        )
        beside = output.with_name(f".{output.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    try:
        expected = opened.model.predict(images, verbose=0)
        measured = []
        for mode in FLAGS.quantize:
            path = beside / f"{opened.model.name}_{mode}.tflite"
            content = (
                convert_int8(opened.model, calibration) if mode == "int8" else convert(opened.model, mode)
            )
            path.write_bytes(content)
            measured.append(measure(mode, path, images, labels, expected, tolerance(mode)))
        (beside / runs.LABELS).write_text("\n".join(opened.class_names) + "\n", encoding="utf-8")
        report = make_report(opened.model.name, measured, accuracy(expected, labels), len(images))
        (beside / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        if output.exists():
            shutil.rmtree(output)
        os.replace(beside, output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    print_table(report, output)
    return 0 if all(row.accepted for row in measured) else 1


def open_output(opened: runs.Opened) -> Path:
    """The folder to write, which must be new, empty or an earlier export."""
    if FLAGS.output:
        output = Path(FLAGS.output)
    elif opened.flags:
        output = Path(FLAGS.model) / "export"
    else:
        output = Path("exports") / opened.model.name
    if output.exists() and not (output / REPORT).is_file() and (output.is_file() or any(output.iterdir())):
        raise ValueError(f"'{output}' is neither empty nor an earlier export: give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    return output


def load_images(opened: runs.Opened, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` images of a split and their labels, drawn from all classes."""
    data = runs.load_data(
        opened, FLAGS.calibration, split, val_fraction=FLAGS.val_fraction, training=True, batch_size=1
    )
    batches = data.dataset.take(min(count, data.size)).as_numpy_iterator()
    images, labels = zip(*batches, strict=True)
    runs.report_unreadable(data.unreadable, FLAGS.strict)
    return np.concatenate(images), np.concatenate(labels)


def tolerance(mode: str) -> Tolerance:
    """What the flags ask of a mode."""
    if mode == "float32":
        return Tolerance(difference=FLAGS.max_difference)
    if mode == "float16":
        return Tolerance(agreement=FLAGS.min_agreement_float16)
    return Tolerance(agreement=FLAGS.min_agreement, drop=FLAGS.max_drop / 100)


def make_report(name: str, measured: list[Measured], keras_top1: float, images: int) -> dict:
    """What `report.json` holds."""
    packages = ("kvision", "keras", "tensorflow", "ai-edge-litert", "litert-quantizer")
    return {
        "model": name,
        "images": images,
        "keras_top1": keras_top1,
        "files": [dataclasses.asdict(row) for row in measured],
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def print_table(report: dict, output: Path) -> None:
    """Prints the report for people."""
    table = rich.table.Table(title=f"{report['model']} on {report['images']} held-out images")
    for column in ("file", "kB", "top-1 %", "agree %", "max diff", "mean diff", "ms: 1 thread", "2", ""):
        table.add_column(column, justify="left" if column == "file" else "right", overflow="fold")
    table.add_row("Keras", "", f"{100 * report['keras_top1']:.1f}", *[""] * 6)
    for row in report["files"]:
        table.add_row(
            row["mode"],
            f"{row['size'] / 1000:.0f}",
            f"{100 * row['top1']:.1f}",
            f"{100 * row['agreement']:.1f}",
            f"{row['largest_difference']:.1e}",
            f"{row['mean_difference']:.1e}",
            *(f"{ms:.2f}" for ms in row["latency_ms"].values()),
            "ok" if row["accepted"] else "FAIL",
        )
    rich.console.Console(highlight=False).print(table)
    accepted = [row for row in report["files"] if row["accepted"]]
    advice = f" Use {min(accepted, key=lambda row: row['size'])['file']}." if accepted else ""
    for row in report["files"]:
        if not row["accepted"]:
            print(f"{row['file']} is outside its tolerance.{advice}")
    print(f"Written to {output}.")


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
