"""What comes before TensorFlow: signals that ask for an end, and the backend of Keras.

It takes seconds to import TensorFlow, and whoever ends a command in that time is heard as well.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: what was asked for is not done; start the command again
SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

_ask: list[Callable[[str], None]] = []  # who saves before the command ends


def begin() -> None:
    """Listens to `SIGNALS`, then imports Keras; ends the command where its backend is not TensorFlow.

    A signal ends the command at once with `REQUEUE`, until `save_first` says who saves before.
    """
    heard = {*SIGNALS}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as nohup asks for
        heard.remove(signal.SIGHUP)
    # A handler would wait for the main thread, which may be inside TensorFlow for minutes, and TensorFlow
    # sets its own where there are workers. What is blocked in all threads comes to `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    threading.Thread(target=_listen, args=(heard,), daemon=True).start()
    settings = "KERAS_BACKEND and keras.json, the settings of Keras, must choose the TensorFlow backend"
    try:
        import keras
    except (ImportError, ValueError) as error:
        _fail(f"Keras cannot be imported: {error} ({settings})")
    if (backend := keras.config.backend()) != "tensorflow":
        _fail(f"{settings}; it is {backend!r}.")


def save_first(ask: Callable[[str], None]) -> None:
    """From now on a signal calls `ask` with its name, and a second SIGINT ends the command at once."""
    _ask[:] = [ask]


def _listen(heard):
    interrupted = False
    while True:
        number = signal.sigwait(heard)
        name = signal.Signals(number).name
        if not _ask or (interrupted and number == signal.SIGINT):
            when = "again: ended without saving" if _ask else "before the training began"
            os.write(2, f"{name} {when}; the same command goes on from what is saved.\n".encode())
            os._exit(REQUEUE)
        interrupted |= number == signal.SIGINT
        _ask[0](name)


def _fail(sentence):
    print(f"kvision-train: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)
