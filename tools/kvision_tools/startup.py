"""Signals that ask for an end, heard before all else.

It takes seconds to import TensorFlow, and whoever ends a command in that time is heard as well.
"""

import os
import signal
import threading
from collections.abc import Callable

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: what was asked for is not done; start the command again
SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

SHOW_CURSOR = b"\x1b[?25h\n"  # which the line of progress hides

_ask: list[Callable[[str], None]] = []  # who saves before the command ends
_when = ["before the training began"]  # a signal comes while nobody has to save


def begin() -> None:
    """Listens to `SIGNALS`.

    A signal ends the command at once with `REQUEUE`, until `save_first` says who saves before.
    """
    heard = {*SIGNALS}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as nohup asks for
        heard.remove(signal.SIGHUP)
    # A handler would wait for the main thread, which may be inside TensorFlow for minutes, and TensorFlow
    # sets its own where there are workers. What is blocked in all threads comes to `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    stderr = os.dup(2)  # which is elsewhere while TensorFlow is imported
    threading.Thread(target=_listen, args=(heard, stderr), daemon=True).start()


def save_first(ask: Callable[[str], None]) -> None:
    """From now on a signal calls `ask` with its name, and a second SIGINT ends the command at once."""
    _ask[:] = [ask]


def end_at_once(when: str) -> None:
    """From now on a signal ends the command at once, as all is saved; `when` says that in the message."""
    _when[:] = [when]
    _ask.clear()


def _listen(heard, stderr):
    interrupted = False
    while True:
        number = signal.sigwait(heard)
        name = signal.Signals(number).name
        if not _ask or (interrupted and number == signal.SIGINT):
            when = "again: ended without saving" if _ask else _when[0]
            if os.isatty(1):
                os.write(1, SHOW_CURSOR)
            os.write(stderr, f"{name} {when}; the same command goes on from what is saved.\n".encode())
            os._exit(REQUEUE)
        interrupted |= number == signal.SIGINT
        _ask[0](name)
