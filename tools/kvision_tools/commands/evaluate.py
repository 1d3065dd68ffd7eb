"""kvision-evaluate: loss and accuracy of a network on a dataset.

kvision-evaluate --model=runs/demo
kvision-evaluate --model=efficientnet_lite0 --weights=imagenet --data=folder:PATH
"""

import sys
import warnings

import numpy as np
from absl import flags

from kvision import _cli, _flags
from kvision._choices import ALL_SPLITS, FORMS, INTERPOLATIONS
from kvision.errors import UserError
from kvision.names import counted

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    _flags.define_model()
    _flags.define_dataset()
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
    flags.DEFINE_integer("batch_size", 32, "Number of images in a step.", 1)


def main(positional):
    """Evaluates by the flags."""
    with _cli.user_errors():
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        _cli.import_keras()
        import keras

        from kvision import _classifiers, _doubts, runs
        from kvision.data import read_errors

        opened = _flags.opened()
        model, preprocess = opened.model, _flags.preprocess()
        if preprocess:
            model = _classifiers.normalized(model, preprocess)

        def load(**keywords):
            return runs.load_data(
                opened,
                FLAGS.data,
                FLAGS.split,
                val_fraction=FLAGS.val_fraction,
                allow_outside=FLAGS.allow_outside,
                crop=FLAGS.crop,
                interpolation=FLAGS.interpolation,
                exif=FLAGS.exif,
                max_unreadable=FLAGS.max_unreadable,
                **keywords,
            )

        data = load(batch_size=FLAGS.batch_size)
    top5 = min(5, len(opened.class_names))
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(top5, name="top_k")],
    )
    warnings.filterwarnings("ignore", "Your input ran out of data")  # how many can be read shows at the end
    with _cli.user_errors():
        with read_errors([data]):
            values = model.evaluate(
                data.dataset.map(lambda batch: (batch["image"], batch["label"])), verbose=0, return_dict=True
            )
        runs.report_unreadable(data.unreadable, FLAGS.strict)
        if not np.isfinite(values["loss"]) and not FLAGS.allow_nonfinite:
            raise UserError(f"{model.name} answers with NaN or infinity: its weights are damaged.")
    readable = data.size - len(data.unreadable)
    print(
        f"{model.name} on {counted(readable, 'image')}: loss {values['loss']:.4f}, "
        f"top-1 {100 * values['accuracy']:.2f} %, top-{top5} {100 * values['top_k']:.2f} %"
    )
    if _classifiers.preprocess_of(opened.model):
        return
    with _cli.user_errors():
        mixed = load(batch_size=min(readable, _doubts.MOST), training=True)  # of all classes
        with read_errors([mixed]):
            batch = next(mixed.dataset.as_numpy_iterator())
        images, labels = batch["image"], batch["label"]
        expected = model.predict_on_batch(images)
        doubts, remarks = _doubts.find(
            opened.model.predict_on_batch, images, labels, expected, given=preprocess
        )
    for sentence in (*remarks, *doubts):
        print(sentence, file=sys.stderr)


def entry():
    """The console script."""
    _cli.run(main, define)


if __name__ == "__main__":
    entry()
