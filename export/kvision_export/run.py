"""An export from the flags of `command.py`, and what it prints."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text
from absl import flags

from kvision import _flags, _networks, runs
from kvision.data import read_errors
from kvision.errors import NoLabels, UserError
from kvision.names import counted, shown
from kvision_export import census, exporter, latency, modes
from kvision_export.checks import check_output
from kvision_export.tolerance import Tolerance

FLAGS = flags.FLAGS


def export(names: Sequence[str]) -> tuple[dict, Path]:
    """Exports a network in modes by their names; returns the report and the folder."""
    opened = _flags.opened()
    if preprocess := _flags.preprocess():
        _networks.normalized(opened.model, preprocess)  # a mismatch shows before images are read
    output = output_of(opened)
    data = FLAGS.calibration or (opened.run and opened.run.data) or ""
    if runs.is_inside(output, data):
        raise UserError(f"`--output` must be outside the folder of the images, {data}; got '{output}'.")
    check_output(output)
    remarks = []
    try:
        images, answers = load_images(opened, "val", FLAGS.images)
    except NoLabels as error:
        images, answers = load_images(opened, "val", FLAGS.images, labeled=False)
        remarks.append(f"The images are taken without labels, wherever they lie. {error}")
    if not opened.named:
        remarks.append(
            "The network has no class names: the files' labels are numbers. --labels=FILE gives names."
        )
    calibration = None
    if any(modes.MODES[name].calibrated for name in names):
        count, labeled = 2 * FLAGS.calibration_images, answers is not None
        calibration, _ = load_images(opened, "train", count, balanced=True, labeled=labeled)
    report = exporter.export(
        opened.model,
        output,
        images=images,
        labels=answers,
        calibration=calibration,
        class_names=opened.class_names,
        preprocess=preprocess,
        target=FLAGS.target,
        modes=names,
        backend=FLAGS.backend,
        io_dtype=FLAGS.io_dtype,
        answer=FLAGS.answer,
        compare=FLAGS.compare,
        description=FLAGS.description,
        licence=FLAGS.licence,
        remarks=remarks,
        tolerances={name: tolerance(name) for name in names},
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return report, output


def output_of(opened: runs.Opened) -> Path:
    """The folder to write."""
    if FLAGS.output:
        return Path(FLAGS.output)
    return Path(FLAGS.model) / "export" if opened.run else Path("exports") / opened.model.name


def load_images(
    opened: runs.Opened, split: str, count: int, balanced: bool = False, labeled: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Up to `count` images of a split, and what they show; None without labels.

    Args:
        opened: the network.
        split: "train" or "val".
        count: of images.
        balanced: whether as many of each class as can be, where an image has a single one.
        labeled: whether labels are read.
    """
    data = runs.load_data(
        opened,
        FLAGS.calibration,
        split,
        val_fraction=FLAGS.val_fraction,
        allow_outside=FLAGS.allow_outside,
        training=True,
        batch_size=1,
        exif=FLAGS.exif,
        max_unreadable=FLAGS.max_unreadable,
        labeled=labeled,
    )
    balanced = balanced and labeled and opened.task.target == "label"
    most = -(-count // len(data.class_names)) if balanced else count
    of_class = dict.fromkeys(range(len(data.class_names)), 0)
    chosen, rest = [], []
    with read_errors([data]):
        for batch in data.dataset.take(data.size).as_numpy_iterator():
            image, label = batch["image"][0], batch[opened.task.target][0] if labeled else None
            number = int(label) if balanced else 0
            full = of_class[number] >= most
            (rest if full else chosen).append((image, label))
            of_class[number] += not full
            del rest[count:]
            if len(chosen) == count:
                break
    runs.report_unreadable(data.unreadable, FLAGS.strict)
    images, answers = zip(*(chosen + rest)[:count], strict=True)
    return np.stack(images), np.array(answers) if labeled else None


def tolerance(mode: str) -> Tolerance:
    """Tolerance of a mode, by the flags."""
    return modes.tolerance(
        mode,
        difference=FLAGS.max_difference,
        float16=FLAGS.min_agreement_float16,
        agreement=FLAGS.min_agreement,
        drop=FLAGS.max_drop / 100,
    )


def print_table(report: dict, output: Path) -> None:
    """Prints the report for people."""
    table = rich.table.Table(
        title=f"{report['model']} on {counted(report['images'], 'held-out image')}",
        caption="KL in nats, SQNR in dB, times in ms with 1 and 2 threads, speed relative to float32",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    keras, score = report["keras"], report["score"]
    columns = (
        "file",
        "kB",
        *([score] if keras else []),
        "agree",
        "KL",
        "SQNR",
        "1 thr",
        "2 thr",
        "speed",
        "",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    if keras:
        doubted = "DOUBT" if report["doubts"] else ""
        table.add_row("Keras", "", f"{100 * keras['scores'][score]['value']:.1f}", *[""] * 6, doubted)
    for file in report["files"]:
        near, right, ms = file["fidelity"], file["accuracy"], file["latency_ms"]
        table.add_row(
            file["mode"],
            f"{file['size'] / 1000:.0f}",
            *([f"{100 * right['scores'][score]['value']:.1f}"] if keras else []),
            f"{100 * near['agreement']:.1f}",
            f"{near['kl']:.3f}",
            "" if file["mode"] == "float32" else f"{near['sqnr']:.1f}",
            *map(latency.milliseconds, ms.values()),
            f"{file['float_latency_ms'][1] / ms[1]:.2f}",
            "" if not file["file"] else "FAIL" if file["refusal"] else "ok",
        )
    rich.console.Console(highlight=False).print(table)
    for sentence in (*report["remarks"], *report["doubts"]):
        print(shown(sentence))
    made = [file for file in report["files"] if file["file"]]
    for file in made:
        if file["census"]["input"]["dtype"] == "int8":
            print(f"{file['mode']}: {file['census']['metadata']['image']}")
        for warning in file["warnings"]:
            print(f"{file['mode']}: {warning}")
    accepted = [file for file in made if not file["refusal"]]
    advice = f" Use {min(accepted, key=lambda file: file['size'])['file']}." if accepted else ""
    for file in made:
        if file["refusal"]:
            print(f"{file['file']} is outside its tolerance: {file['refusal']}.{advice}")
    print(f"Written to {output}; the report is {output / 'report.html'}.")


def check(paths) -> int:
    """Prints the census of files; returns 1 where one has a fault."""
    console = rich.console.Console(highlight=False)
    takens = [census.read(Path(path)) for path in paths]
    for path, taken in zip(paths, takens, strict=True):
        table = rich.table.Table(title=rich.text.Text(str(path)), show_header=False, title_justify="left")
        for name, value in rows_of(taken):
            table.add_row(name, rich.text.Text(value))
        console.print(table)
    return 1 if any(taken.faults for taken in takens) else 0


def rows_of(taken: census.Census) -> list[tuple[str, str]]:
    """Rows of the table that `--check` prints."""
    about = dict(taken.metadata)
    labels = about.pop("labels", [])
    said = {True: "fully accelerated", False: "not fully accelerated", None: "not compiled here"}
    computed = (
        ", ".join(f"{sum(counts.values())} in {kind}" for kind, counts in taken.computed_in.items())
        + "; weights: "
        + (", ".join(f"{count} {kind}" for kind, count in taken.stored_as.items()) or "none")
    )
    return [
        ("faults", " ".join(taken.faults) or "none"),
        ("operators", ", ".join(f"{count} {name}" for name, count in taken.operators.items())),
        ("computed", computed),
        ("oldest runtime", f"TFLite {taken.runtime}" if taken.runtime else "not in the table"),
        ("bytes", ", ".join(f"{size:,} of {name}" for name, size in taken.sections.items())),
        ("XNNPACK", f"partitions: {taken.partitions}; left out: "
         + (", ".join(f"{count} {name}" for name, count in taken.left_out.items()) or "nothing")),
        ("CompiledModel", said[taken.accelerated]),
        ("GPU", taken.gpu or "not analysed"),
        ("metadata", "; ".join(f"{key} {value}" for key, value in about.items() if value) or "none"),
        ("labels", f"{len(labels)}: {', '.join(labels[:5])}" + ", ..." * (len(labels) > 5)),
    ]  # fmt: skip
