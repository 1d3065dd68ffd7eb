"""kvision-evaluate: metrics of a network on a dataset, such as its accuracy.

kvision-evaluate --model=runs/demo
kvision-evaluate --model=efficientnet_lite0 --weights=imagenet --data=folder:PATH
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from absl import flags

from kvision import cli, model_flags
from kvision.choices import ALL_SPLITS, DATASETS, INTERPOLATIONS
from kvision.errors import UserError
from kvision.files import check_file, replacing
from kvision.names import counted

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    model_flags.define_model()
    model_flags.define_dataset()
    model_flags.define_answers()
    flags.DEFINE_string("data", None, f"Dataset: {DATASETS}; a run folder's own by default.")
    flags.DEFINE_enum("split", "val", ALL_SPLITS, "Split to evaluate.")
    flags.DEFINE_float(
        "crop",
        None,
        "Share of the resized image's side that is evaluated; the network's own by default.",
        0,
        1,
    )
    flags.DEFINE_enum(
        "interpolation",
        None,
        INTERPOLATIONS,
        "Interpolation with which images are resized; the network's own by default.",
    )
    flags.DEFINE_string(
        "json", None, "JSON file to which the metrics are written, those of each class too; in [0, 1]."
    )
    flags.DEFINE_enum(
        "voc_ap",
        None,
        ("11", "all"),
        "Average precision of detectors by VOC's rules instead of COCO's: over 11 recalls, as until VOC2009, "
        "or over all.",
    )
    flags.DEFINE_integer(
        "batch_size", 32, "Number of images in a step; images with masks are evaluated one by one.", 1
    )


def main(positional):
    """Evaluates by the flags."""
    with cli.user_errors():
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        file = None if FLAGS.json is None else Path(FLAGS.json).expanduser()
        if file:
            check_file(file, "--json")  # before any image is judged
        cli.import_keras()
        from kvision import input_checks, networks
        from kvision.data import read_errors
        from kvision.data.skipped import report_unreadable
        from kvision.tasks import VOCDetection, add

        opened = model_flags.opened()
        model, preprocess, task = opened.model, model_flags.preprocess(), opened.task
        if FLAGS.voc_ap:
            if task.target != "boxes":
                raise UserError(f"`--voc_ap` is for detectors; {model.name} learned {task.name}.")
            eleven_points = FLAGS.voc_ap == "11"
            task = VOCDetection(class_names=task.class_names, eleven_points=eleven_points).fitted(model)
        if FLAGS.crop is not None and task.own_size:
            raise UserError(f"`--crop` is for networks that classify images; {model.name} sees whole ones.")
        if preprocess:
            model = networks.normalized(model, preprocess)

        def load(**keywords):
            return model_flags.load_data(
                opened,
                FLAGS.data,
                FLAGS.split,
                crop=FLAGS.crop,
                interpolation=FLAGS.interpolation,
                own_size=task.own_size,
                **keywords,
            )

        data, sums, found = load(batch_size=FLAGS.batch_size), {}, []
        with read_errors([data]):
            for batch in data.dataset.as_numpy_iterator():
                answers = task.ask(model, batch)
                if not networks.are_finite(answers) and not FLAGS.allow_nonfinite:
                    raise UserError(f"{model.name} answers with NaN or infinity: its weights are damaged.")
                add(sums, task.judge(answers, batch))  # pyright: ignore  # TensorFlow's stubs know no dicts
                if task.one_class:
                    found.append((answers.argmax(-1), batch["label"]))
        report_unreadable(data.unreadable, FLAGS.strict)
        readable = int(sums["images"])
        print(f"{model.name} on {counted(readable, task.kind)}: {task.report(sums)}")
        if file:
            write_json(
                file,
                {
                    "model": FLAGS.model,
                    "data": FLAGS.data or (opened.run and opened.run.data),
                    "split": FLAGS.split,
                    "images": readable,
                    "metrics": task.figures(sums),
                },
            )
    for remark in task.remarks(sums):
        print(remark, file=sys.stderr)
    if networks.preprocess_of(opened.model) or not task.images:
        if found:
            answers, labels = map(np.concatenate, zip(*found, strict=True))
            for sentence in input_checks.no_better_than_chance(answers, labels, len(task.class_names)):
                print(sentence, file=sys.stderr)
        return
    if not task.one_class:
        print(input_checks.unchecked(preprocess, networks.image_shape(model)[-1]), file=sys.stderr)
        return
    with cli.user_errors():
        mixed = load(batch_size=min(readable, input_checks.MOST), training=True)  # of all classes
        with read_errors([mixed]):
            batch = next(mixed.dataset.as_numpy_iterator())
        images, labels = batch["image"], batch["label"]
        expected = model.predict_on_batch(images)
        doubts, remarks = input_checks.find(
            opened.model.predict_on_batch, images, labels, expected, given=preprocess
        )
    for sentence in (*remarks, *doubts):
        print(sentence, file=sys.stderr)


def write_json(file: Path, content: dict) -> None:
    """Writes figures, NaN as null."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with replacing(file) as tmp_path:
        tmp_path.write_text(json.dumps(plain(content), indent=2) + "\n", encoding="utf-8")


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
