"""kvision-evaluate: loss and accuracy of a network on a dataset.

kvision-evaluate --model=runs/demo
kvision-evaluate --model=efficientnet_lite0 --weights=imagenet --data=folder:PATH
"""

import warnings

import numpy as np
from absl import flags

from kvision import _cli
from kvision._choices import ALL_SPLITS, FORMS, INTERPOLATIONS, WEIGHTS
from kvision.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model", None, "Run folder, .keras file, or name of a network that kvision-info lists.", required=True
)
flags.DEFINE_bool("allow_nonfinite", False, "Whether --weights may hold NaN or infinity.")
flags.DEFINE_string("weights", None, f"Trained weights for a network given by name: {WEIGHTS}.")
flags.DEFINE_string("labels", None, _cli.NAMES)
flags.DEFINE_integer(
    "image_size",
    None,
    "Height and width of the input in pixels, for a name or a network that takes any size.",
    1,
)
flags.DEFINE_string("data", None, f"Dataset: {FORMS}; a run folder's own by default.")
flags.DEFINE_enum("split", "val", ALL_SPLITS, "Split to evaluate.")
flags.DEFINE_float("val_fraction", 0.2, "Share held out where the dataset has no split of its own.")
flags.DEFINE_bool("allow_outside", False, "Whether a CSV file may list images outside its own folder.")
flags.DEFINE_float(
    "crop", None, "Share of the resized image's side that is evaluated; the network's own by default.", 0, 1
)
flags.DEFINE_bool("strict", False, "Whether to end at the first file that fails to decode.")
flags.DEFINE_float("max_unreadable", 0.1, _cli.MAX_UNREADABLE, 0, 1)
flags.DEFINE_bool("exif", None, _cli.EXIF)
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

        from kvision import runs
        from kvision.data import read_errors

        opened = runs.open_trained(
            FLAGS.model, FLAGS.weights, FLAGS.image_size, FLAGS.labels, FLAGS.allow_nonfinite
        )
        data = runs.load_data(
            opened,
            FLAGS.data,
            FLAGS.split,
            val_fraction=FLAGS.val_fraction,
            allow_outside=FLAGS.allow_outside,
            crop=FLAGS.crop,
            interpolation=FLAGS.interpolation,
            batch_size=FLAGS.batch_size,
            exif=FLAGS.exif,
            max_unreadable=FLAGS.max_unreadable,
        )
    top5 = min(5, len(opened.class_names))
    opened.model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(top5, name="top_k")],
    )
    warnings.filterwarnings("ignore", "Your input ran out of data")  # how many can be read shows at the end
    with _cli.user_errors():
        with read_errors([data]):
            values = opened.model.evaluate(
                data.dataset.map(lambda batch: (batch["image"], batch["label"])), verbose=0, return_dict=True
            )
        runs.report_unreadable(data.unreadable, FLAGS.strict)
        if not np.isfinite(values["loss"]) and not FLAGS.allow_nonfinite:
            raise UserError(f"{opened.model.name} answers with NaN or infinity: its weights are damaged.")
    print(
        f"{opened.model.name} on {data.size - len(data.unreadable)} images: loss {values['loss']:.4f}, "
        f"top-1 {100 * values['accuracy']:.2f} %, top-{top5} {100 * values['top_k']:.2f} %"
    )


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
