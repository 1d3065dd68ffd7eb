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

from kvision import cli
from kvision.errors import UserError
from kvision_tools.config import define_flags, from_flags

TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)  # full disks, lost mounts
PERMANENT = (  # wrong paths and permissions, which another start meets again
    errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    define_flags(FLAGS)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Whether to say only what would be trained, and its memory and time; nothing is written.",
    )


def main(positional):
    with cli.user_errors():
        if positional:
            raise UserError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        config = from_flags(FLAGS)
        cli.import_keras()
        from kvision_tools.dry_run import dry_run
        from kvision_tools.preparation import Preparation
        from kvision_tools.training import Training

        with requeued("the same command goes on", lambda error: error.errno in TRANSIENT):
            prepared = Preparation(config)
            if FLAGS.dry_run:
                dry_run(prepared)
                return
            training = Training(prepared)
            training.open()
        with requeued(f"{training.again} goes on", may_pass):
            training.train()


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
        cli.fail(f"{cli.sentence(error)} Once that is solved, {what}.", startup.REQUEUE)


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
