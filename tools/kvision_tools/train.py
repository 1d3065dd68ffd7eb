"""kvision-train: trains a network on a dataset and leaves a run folder.

    kvision-train --model=mobilenet_v2 --data=digits --image_size=64 --epochs=10 --output=runs/digits

The folder holds flags.txt (repeat with --flagfile), metrics.csv, TensorBoard events, curves.png, model.keras
(the best on validation, with logits as its output), labels.txt and checkpoints. The same command on the same
folder goes on after the last checkpoint. SIGTERM, SIGHUP and Ctrl-C save one and end the command with exit
code 75, as a full disk and images that cannot be read any more do; a second Ctrl-C does not wait.
"""

import contextlib
import errno
import sys
from collections.abc import Container, Iterator
from pathlib import Path

from kvision_tools import startup

if __name__ == "__main__" or Path(sys.argv[0]).name == "kvision-train":
    startup.begin()

from absl import flags

from kvision import _cli
from kvision._choices import AUGMENTATIONS, CACHES, FORMS, INTERPOLATIONS, WEIGHTS
from kvision.errors import UserError
from kvision_tools.choices import OPTIMIZERS, STRATEGIES

TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)  # full disks, lost mounts

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A name that kvision-info lists.", required=True)
flags.DEFINE_multi_string(
    "model_kwarg", [], "KEY=VALUE of the builder, repeatable: --model_kwarg=width_multiplier=0.35"
)
flags.DEFINE_string("weights", None, f"To start from: {WEIGHTS}.")
flags.DEFINE_bool("allow_nonfinite", False, "Whether --weights may be NaN or infinity.")
flags.DEFINE_string("freeze", "none", "none, trunk (all but the top), or N: the first N groups by depth.")
flags.DEFINE_string("data", None, f"{FORMS}.", required=True)
flags.DEFINE_float("val_fraction", 0.2, "Share held out where the dataset has no split of its own.")
flags.DEFINE_bool("allow_outside", False, "Whether a CSV file may list images outside its own folder.")
flags.DEFINE_bool("strict", False, "End the run at a file that fails to decode.")
flags.DEFINE_float("max_unreadable", 0.1, _cli.MAX_UNREADABLE, 0, 1)
flags.DEFINE_bool("exif", True, "Turn images as their EXIF orientation says.")
flags.DEFINE_enum("cache", "none", CACHES, "Decoded images in memory, or encoded ones in ~/.cache/kvision.")
flags.DEFINE_integer("image_size", None, "Height and width in pixels; the network's own by default.", 1)
flags.DEFINE_integer("channels", 3, "3 for RGB, 1 for grey.")
flags.DEFINE_enum("augment", "none", AUGMENTATIONS, "Random boxes of the training images, mirrored too.")
flags.DEFINE_float("min_crop_area", 0.08, "Smallest share of an image that --augment cuts out.", 0, 1)
flags.DEFINE_float("crop", None, "Share of the resized side that is evaluated; the weights' own, or 1.", 0, 1)
flags.DEFINE_enum("interpolation", None, INTERPOLATIONS, "Before --crop; the weights' own, or bilinear.")
flags.DEFINE_integer(
    "epochs",
    10,
    "Passes over the training images. More of them lengthen the run in --output: from its last step on, it "
    "has the learning rates of a run of the new length; the warm-up stays.",
    1,
)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices and workers.", 1)
flags.DEFINE_integer("accumulate", 1, "Parts of a batch that pass one after the other, to save memory.", 1)
flags.DEFINE_enum("optimizer", "sgd", OPTIMIZERS, "Its settings: kvision_tools/optimizers.py.")
flags.DEFINE_float("learning_rate", None, "At its peak; 0.05 by default.", 0)
flags.DEFINE_float("learning_rate_per_256", None, "Instead: for each 256 images of a batch.", 0)
flags.DEFINE_float(
    "warmup_epochs",
    None,
    "Epochs of linear growth, before the cosine; 1 by default, or half of fewer, or the run's in --output.",
    0,
)
flags.DEFINE_float("weight_decay", 0.0, "Decoupled; spares norms and biases.", 0)
flags.DEFINE_float("layer_decay", 1.0, "Of the learning rate, for each group of layers behind.", 0, 1)
flags.DEFINE_float("clip_norm", None, "Largest norm of all gradients together.", 0)
flags.DEFINE_float("label_smoothing", 0.0, "Share of the label spread over all classes.", 0, 1)
flags.DEFINE_float("norm_momentum", None, "Of the batch norms; a short run needs 0.9.", 0, 1)
flags.DEFINE_bool(
    "sync_batch_norm",
    False,
    "Batch norms see the images of all devices; else each its own, and the first one's statistics are saved.",
)
flags.DEFINE_float("ema_decay", None, "Of a moving average of the weights, evaluated beside them.", 0, 1)
flags.DEFINE_enum(
    "precision", "float32", ("float32", "bfloat16", "float16"), "Of arithmetic, not of weights."
)
flags.DEFINE_bool("jit_compile", False, "Forward and backward pass by XLA.")
flags.DEFINE_bool("deterministic", False, "The same run gives the same bits; slower on GPUs.")
flags.DEFINE_enum("strategy", "auto", STRATEGIES, "Which devices share a step.")
flags.DEFINE_float("worker_timeout", 300.0, "Seconds to wait for other workers.", 0)
flags.DEFINE_integer(
    "steps_per_loop", 10, "Steps in one call of the device, after which metrics are read.", 1
)
flags.DEFINE_integer("checkpoint_steps", None, "Between checkpoints; there is one after each epoch too.", 1)
flags.DEFINE_integer(
    "nan_restores", 3, "How often to go back to a checkpoint when the loss is not finite.", 0
)
flags.DEFINE_float("nan_rate_factor", 1.0, "Of the learning rate, each time.", 0, 1)
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.", 0, 2**32 - 1)
flags.DEFINE_string("output", None, "The run folder; runs/MODEL by default.")
flags.DEFINE_bool("overwrite", False, "Start anew in a folder that holds another run.")
flags.DEFINE_bool("dry_run", False, "Say what would be trained, and its memory and time; write nothing.")


def main(positional):
    with _cli.user_errors():
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        _cli.import_keras()
        from kvision_tools.dry_run import dry_run
        from kvision_tools.run import Run

        with requeued("the same command goes on", TRANSIENT):
            run = Run()
            if FLAGS.dry_run:
                dry_run(run)
                return
            run.open()
        with requeued(f"{run.again} goes on"):  # whether it can is seen when it begins
            run.train()


@contextlib.contextmanager
def requeued(what: str, numbers: Container[int] | None = None) -> Iterator[None]:
    """Turns what the system refuses into one sentence and the exit code that asks to be started again.

    Args:
        what: happens once the reason is mended.
        numbers: of `errno`; None for all.
    """
    try:
        yield
    except OSError as error:
        if numbers is not None and error.errno not in numbers:
            raise
        _cli.fail(f"{_cli.sentence(error)} When that is mended, {what}.", startup.REQUEUE)


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
