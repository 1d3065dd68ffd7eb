"""kvision-predict: the most probable classes of images.

kvision-predict --model=runs/demo IMAGE...
kvision-predict --model=efficientnet_lite0 --weights=imagenet IMAGE...
"""

import numpy as np
from absl import flags

from kvision import _cli, runs
from kvision.data import read_image
from kvision.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model", None, "A run folder, a .keras file, or a name that kvision-info lists.", required=True
)
flags.DEFINE_string("weights", None, f"Of a name: {runs.WEIGHTS}.")
flags.DEFINE_bool("allow_nonfinite", False, "Whether --weights may be NaN or infinity.")
flags.DEFINE_integer("image_size", None, "Height and width, for a name or a network of any size.", 1)
flags.DEFINE_bool("exif", None, runs.EXIF)
flags.DEFINE_integer("topk", 5, "How many classes.", 1)


def main(paths):
    """Predicts by the flags."""
    with _cli.user_errors():
        if not paths:
            raise UserError("Which images? kvision-predict --model=MODEL IMAGE...")
        opened = runs.open_trained(FLAGS.model, FLAGS.weights, FLAGS.image_size, FLAGS.allow_nonfinite)
        channels = opened.model.input_shape[-1]
        exif = opened.exif if FLAGS.exif is None else FLAGS.exif
        images = [
            read_image(path, opened.image_size, channels, opened.crop, opened.interpolation, exif)
            for path in paths
        ]
    for path, image in zip(paths, images, strict=True):
        probabilities = opened.model.predict(image[None], verbose=0)[0]
        print(path)
        for index in np.argsort(-probabilities)[: FLAGS.topk]:
            print(f"  {100 * probabilities[index]:5.1f} %  {index}  {opened.class_names[index]}")


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
