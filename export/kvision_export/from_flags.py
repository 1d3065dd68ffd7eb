"""An export as the flags of `command.py` ask for it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from absl import flags

from kvision import model_flags, network_data, networks, opening
from kvision.data import read_errors
from kvision.data.skipped import report_unreadable
from kvision.errors import NoLabels, UserError
from kvision_export import exporter, modes
from kvision_export.checks import check_output
from kvision_export.tolerance import Tolerance

FLAGS = flags.FLAGS
WAYS = ("one_shot", "streaming")  # see `exporter.export`


def export(names: Sequence[str]) -> tuple[dict, Path]:
    """Exports a network in modes by their names; returns the report and the folder."""
    opened = model_flags.opened()
    if preprocess := model_flags.preprocess():
        networks.normalized(opened.model, preprocess)  # a mismatch shows before images are read
    output = output_folder(opened)
    data = FLAGS.calibration or (opened.run and opened.run.data) or ""
    if network_data.is_inside(output, data):
        raise UserError(f"`--output` must be outside the folder of the images, {data}; got '{output}'.")
    check_output(output)
    remarks = []
    try:
        images, labels = load_images(opened, "val", FLAGS.images)
    except NoLabels as error:
        images, labels = load_images(opened, "val", FLAGS.images, labeled=False)
        remarks.append(f"The images are taken without labels, wherever they lie. {error}")
    if not opened.named:
        remarks.append(
            "The network has no class names: the files' labels are numbers. --labels=FILE gives names."
        )
    calibration = None
    if any(modes.MODES[name].calibrated for name in names):
        count, labeled = 2 * FLAGS.calibration_images, labels is not None
        calibration, _ = load_images(opened, "train", count, balanced=True, labeled=labeled)
    report = exporter.export(
        opened.model,
        output,
        images=images,
        labels=labels,
        calibration=calibration,
        class_names=opened.class_names,
        preprocess=preprocess,
        target=FLAGS.target,
        modes=names,
        backend=FLAGS.backend,
        io_dtype=FLAGS.io_dtype,
        way=next((name for name in WAYS if FLAGS[name].value), ""),
        answer=FLAGS.answer,
        compare=FLAGS.compare,
        description=FLAGS.description,
        license=FLAGS.license,
        remarks=remarks,
        tolerances={name: tolerance(name) for name in names},
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return report, output


def output_folder(opened: opening.Opened) -> Path:
    """The folder to write, by the flags."""
    if FLAGS.output:
        return Path(FLAGS.output).expanduser()
    model = Path(FLAGS.model).expanduser()
    run = model.parent if model.is_file() else model
    return run / "export" if opened.run else Path("exports") / opened.model.name


def load_images(
    opened: opening.Opened, split: str, count: int, balanced: bool = False, labeled: bool = True
) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray | dict[str, np.ndarray] | None]:
    """Up to `count` images of a split, and what they show, see `exporter.export`; None without labels.

    Args:
        opened: the network.
        split: "train" or "val".
        count: largest number of images.
        balanced: whether as many of each class as can be, where an image has a single one.
        labeled: whether labels are read.
    """
    data = model_flags.load_data(
        opened,
        FLAGS.calibration,
        split,
        shuffled=True,
        batch_size=1,
        labeled=labeled,
        own_size=labeled and bool(opened.task.compared),
    )
    balanced = balanced and labeled and opened.task.one_class
    most = -(-count // len(data.class_names)) if balanced else count
    class_counts = dict.fromkeys(range(len(data.class_names)), 0)
    chosen, rest = [], []
    with read_errors([data]):
        for batch in data.dataset.take(data.size).as_numpy_iterator():
            image = _first(opened.task.served(batch))
            label = _first(opened.task.truths(batch)) if labeled else 0
            number = int(label) if balanced else 0
            full = class_counts[number] >= most
            (rest if full else chosen).append((image, label))
            class_counts[number] += not full
            del rest[count:]
            if len(chosen) == count:
                break
    report_unreadable(data.unreadable, FLAGS.strict)
    images, labels = zip(*(chosen + rest)[:count], strict=True)
    return _stacked(images), _stacked(labels) if labeled else None


def _first(batch):
    """The first example of an array, or of a dict of arrays."""
    return keras.tree.map_structure(lambda part: part[0], batch)


def _stacked(examples):
    """Arrays, or dicts of arrays, as one of several images."""
    return keras.tree.map_structure(lambda *parts: np.stack(parts), *examples)


def tolerance(mode: str) -> Tolerance:
    """Tolerance of a mode, by the flags."""
    return modes.tolerance(
        mode,
        difference=FLAGS.max_difference,
        float16=FLAGS.min_agreement_float16,
        agreement=FLAGS.min_agreement,
        drop=FLAGS.max_drop / 100,
    )
