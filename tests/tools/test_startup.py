"""Signals that ask a training for its end, before and while it runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvision_tools.startup import REQUEUE

LISTENS = """
import time
from kvision_tools import startup
startup.begin()
startup.save_first(lambda name: print(name, flush=True))
print("ready", flush=True)
time.sleep(60)
"""


def start(*call, **environment):
    return subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def test_a_second_ctrl_c_ends_at_once():
    with start(sys.executable, "-c", LISTENS) as process:
        assert process.stdout.readline() == "ready\n"
        for asks in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(asks)
            assert process.stdout.readline() == f"{asks.name}\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == REQUEUE
        assert process.stderr.read().startswith(
            "SIGINT again: ended without saving; the same command goes on"
        )


def test_nothing_is_saved_behind_the_last_epoch():
    code = LISTENS.replace('print("ready"', 'startup.end_at_once("behind the last epoch"); print("ready"')
    with start(sys.executable, "-c", code) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == REQUEUE
        assert process.stderr.read().startswith("SIGTERM behind the last epoch; the same command goes on")


def test_the_cursor_comes_back_at_once():
    """The line of progress hides it."""
    terminal, its_end = os.openpty()
    code = LISTENS.replace("startup.save_first(lambda name: print(name, flush=True))", "")
    call = [sys.executable, "-c", code]
    with (
        open(terminal, "rb", buffering=0) as printed,
        subprocess.Popen(call, stdout=its_end, stderr=subprocess.DEVNULL) as process,
    ):
        assert printed.readline() == b"ready\r\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == REQUEUE
        assert printed.readline() == b"\x1b[?25h\r\n"
    os.close(its_end)


@pytest.mark.parametrize("asks", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_heard_while_tensorflow_is_imported(asks, tmp_path):
    (tmp_path / "tensorflow.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    train = Path(sys.executable).parent / "kvision-train"
    with start(
        train, "--model=lenet5", "--data=digits", f"--output={tmp_path}/run", PYTHONPATH=path
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(asks)
        assert process.wait(5) == REQUEUE
        assert process.stderr.read().startswith(f"{asks.name} before the training began; the same command")
