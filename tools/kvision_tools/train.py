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
from collections.abc import Callable, Iterator
from pathlib import Path

from kvision_tools import startup

if __name__ == "__main__" or Path(sys.argv[0]).name == "kvision-train":
    startup.begin()

from absl import flags

from kvision import _cli
from kvision._choices import AUGMENTATIONS, CACHES, FORMS, INTERPOLATIONS, WEIGHTS
from kvision.errors import UserError
from kvision.names import plain
from kvision_tools.choices import LEARNING_RATES, STRATEGIES

TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)  # full disks, lost mounts
PERMANENT = (  # wrong paths and permissions, which another start meets again
    errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of the network, as kvision-info lists it.", required=True)
flags.DEFINE_multi_string(
    "model_kwarg",
    [],
    "Keyword of the builder as KEY=VALUE, such as --model_kwarg=width_multiplier=0.35; repeatable.",
)
flags.DEFINE_string("weights", None, f"Weights to start from: {WEIGHTS}.")
flags.DEFINE_bool("allow_nonfinite", False, "Whether --weights may hold NaN or infinity.")
flags.DEFINE_string(
    "freeze", "none", "Layers that are not trained: none, trunk (all but the top), or N, the first N groups."
)
flags.DEFINE_string("data", None, f"Dataset: {FORMS}.", required=True)
flags.DEFINE_float("val_fraction", 0.2, "Share held out where the dataset has no split of its own.")
flags.DEFINE_bool("allow_outside", False, "Whether a CSV file may list images outside its own folder.")
flags.DEFINE_bool("strict", False, "Whether the run ends at the first file that fails to decode.")
flags.DEFINE_float("max_unreadable", 0.1, _cli.MAX_UNREADABLE, 0, 1)
flags.DEFINE_bool("exif", True, "Whether images are turned as their EXIF orientation says.")
flags.DEFINE_enum(
    "cache",
    "none",
    CACHES,
    "Where images are kept after the first epoch: decoded in memory, or encoded in ~/.cache/kvision.",
)
flags.DEFINE_integer(
    "image_size",
    None,
    "Height and width of the input in pixels; the network's own by default.",
    1,
    _cli.LARGEST_IMAGE,
)
flags.DEFINE_integer("channels", 3, "Channels of the input: 3 for RGB, 1 for grey.")
flags.DEFINE_enum(
    "augment",
    "none",
    AUGMENTATIONS,
    "Augmentation of the training images; crop_flip cuts out random boxes and mirrors half of them.",
)
flags.DEFINE_float("min_crop_area", 0.08, "Smallest share of an image that --augment cuts out.", 0, 1)
flags.DEFINE_float(
    "crop",
    None,
    "Share of the resized image's side that is evaluated; by default that of the weights, or 1.",
    0,
    1,
)
flags.DEFINE_enum(
    "interpolation",
    None,
    INTERPOLATIONS,
    "Interpolation with which images are resized before --crop; by default that of the weights, or bilinear.",
)
flags.DEFINE_integer(
    "epochs",
    10,
    "Passes over the training images. More of them lengthen the run in --output: from its last step on, it "
    "has the learning rates of a run of the new length; the warm-up stays.",
    1,
)
flags.DEFINE_integer("batch_size", 32, "Number of images in a step, over all devices and workers.", 1)
flags.DEFINE_integer(
    "accumulate",
    1,
    "Number of parts into which a batch is split to save memory; their gradients are accumulated.",
    1,
)
flags.DEFINE_enum(
    "optimizer", "sgd", LEARNING_RATES, "Optimizer; its settings are in kvision_tools/optimizers.py."
)
flags.DEFINE_float(
    "learning_rate",
    None,
    "Peak learning rate, for any --batch_size; by default "
    f"{', '.join(f'{rate:g} for {name}' for name, rate in LEARNING_RATES.items())}.",
    0,
)
flags.DEFINE_float(
    "learning_rate_per_256",
    None,
    "Peak learning rate for each 256 images of a batch, in place of --learning_rate.",
    0,
)
flags.DEFINE_float(
    "warmup_epochs",
    None,
    "Epochs over which the learning rate grows linearly from 0, before it falls along a cosine. By default "
    "that of the run in --output, or else 1, or half of --epochs=1.",
    0,
)
flags.DEFINE_float("weight_decay", 0.0, "Decoupled weight decay of kernels; norms and biases have none.", 0)
flags.DEFINE_float(
    "layer_decay",
    1.0,
    "Factor on the learning rate of each group of layers, relative to the group after it.",
    0,
    1,
)
flags.DEFINE_float("clip_norm", None, "Global norm to which gradients are clipped.", 0)
flags.DEFINE_float("label_smoothing", 0.0, "Share of the label that is spread over all classes.", 0, 1)
flags.DEFINE_float(
    "norm_momentum", None, "Momentum of the moving statistics of batch norms; a short run needs 0.9.", 0, 1
)
flags.DEFINE_bool(
    "sync_batch_norm",
    False,
    "Whether batch norms see the images of all devices; otherwise each sees its own, and the first one's "
    "statistics are saved.",
)
flags.DEFINE_float(
    "ema_decay", None, "Decay of a moving average of the weights, which is evaluated beside them.", 0, 1
)
flags.DEFINE_enum(
    "precision", "float32", ("float32", "bfloat16", "float16"), "Compute dtype; variables stay float32."
)
flags.DEFINE_bool("jit_compile", False, "Whether the forward and the backward pass are compiled by XLA.")
flags.DEFINE_bool("deterministic", False, "Whether equal runs give equal bits; slower on GPUs.")
flags.DEFINE_enum("strategy", "auto", STRATEGIES, "Distribution strategy: which devices share a step.")
flags.DEFINE_float("worker_timeout", 300.0, "Seconds to wait for other workers.", 0)
flags.DEFINE_integer(
    "steps_per_loop", 10, "Number of steps in one call of the device, after which metrics are read.", 1
)
flags.DEFINE_integer(
    "checkpoint_steps", None, "Number of steps between checkpoints; there is one after each epoch too.", 1
)
flags.DEFINE_integer(
    "nan_restores",
    3,
    "Number of times that the run goes back to a checkpoint when the loss is not finite.",
    0,
)
flags.DEFINE_float(
    "nan_rate_factor",
    1.0,
    "Factor on the learning rate each time that the run goes back because the loss is not finite.",
    0,
    1,
)
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.", 0, 2**32 - 1)
flags.DEFINE_string("output", None, "Run folder; runs/MODEL by default.")
flags.DEFINE_bool("overwrite", False, "Whether a run in --output, with its export folder, is replaced.")
flags.DEFINE_bool(
    "dry_run",
    False,
    "Whether to say only what would be trained, and its memory and time; nothing is written.",
)


def main(positional):
    with _cli.user_errors():
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        _cli.import_keras()
        from kvision_tools.dry_run import dry_run
        from kvision_tools.run import Run

        with enough_memory():
            with requeued("the same command goes on", lambda error: error.errno in TRANSIENT):
                run = Run()
                if FLAGS.dry_run:
                    dry_run(run)
                    return
                run.open()
            with requeued(f"{run.again} goes on", may_pass):
                run.train()


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Makes a UserError of what TensorFlow raises where a device has too little memory."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"Out of memory: a smaller --batch_size or --image_size needs less, and so does a higher "
            f"--accumulate ({plain(error.message.partition(chr(10))[0])})."
        ) from error


def may_pass(error: OSError) -> bool:
    """Whether another start may go without the error: images that went away may come back."""
    return not isinstance(error, PermissionError) and error.errno not in PERMANENT


@contextlib.contextmanager
def requeued(what: str, retried: Callable[[OSError], bool]) -> Iterator[None]:
    """Turns errors of the system into one sentence and the exit code that asks to be started again.

    Args:
        what: happens once the reason is gone.
        retried: whether another start may help; other errors are raised.
    """
    try:
        yield
    except OSError as error:
        if not retried(error):
            raise
        _cli.fail(f"{_cli.sentence(error)} Once that is solved, {what}.", startup.REQUEUE)


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
