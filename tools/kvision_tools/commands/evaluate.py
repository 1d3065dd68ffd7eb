"""kvision-evaluate: metrics of a network on a dataset, such as its accuracy.

kvision-evaluate --model=runs/demo
kvision-evaluate --model=efficientnet_lite0 --weights=imagenet --data=folder:PATH
"""

import sys

from absl import flags

from kvision import cli, model_flags
from kvision.choices import ALL_SPLITS, FORMS, INTERPOLATIONS
from kvision.errors import UserError
from kvision.names import counted

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    model_flags.define_model()
    model_flags.define_dataset()
    flags.DEFINE_string("data", None, f"Dataset: {FORMS}; a run folder's own by default.")
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
    flags.DEFINE_integer(
        "batch_size", 32, "Number of images in a step; images with masks are evaluated one by one.", 1
    )


def main(positional):
    """Evaluates by the flags."""
    with cli.user_errors():
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        cli.import_keras()
        from kvision import input_checks, networks
        from kvision.data import read_errors
        from kvision.data.skipped import report_unreadable
        from kvision.tasks import add

        opened = model_flags.opened()
        model, preprocess, task = opened.model, model_flags.preprocess(), opened.task
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

        data, sums = load(batch_size=FLAGS.batch_size), {}
        with read_errors([data]):
            for batch in data.dataset.as_numpy_iterator():
                answers = model.predict_on_batch(batch["image"])
                if not networks.are_finite(answers) and not FLAGS.allow_nonfinite:
                    raise UserError(f"{model.name} answers with NaN or infinity: its weights are damaged.")
                add(sums, task.judge(answers, batch))  # pyright: ignore  # TensorFlow's stubs know no dicts
        report_unreadable(data.unreadable, FLAGS.strict)
        readable = int(sums["images"])
        print(f"{model.name} on {counted(readable, 'image')}: {task.report(sums)}")
    for remark in task.remarks(sums):
        print(remark, file=sys.stderr)
    if networks.preprocess_of(opened.model):
        return
    if task.target != "label":
        print(input_checks.unchecked(preprocess, model.input_shape[-1]), file=sys.stderr)
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


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
