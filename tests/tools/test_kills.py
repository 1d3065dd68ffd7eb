"""Runs that are killed anywhere, or meet a full disk, end with the bits of one that was not."""

import errno
import os
import random
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import COMMANDS, _run, start

RUN = [
    "kvision-train", "--model=lenet5", "--channels=1", "--data=digits", "--batch_size=128", "--epochs=2",
    "--learning_rate=0.01", "--deterministic", "--ema_decay=0.9", "--steps_per_loop=2",
    "--checkpoint_steps=5",
]  # fmt: skip
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock"}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disturbed(act, first, arguments, folder, texts, count):
    """Runs a command that is disturbed from an operation on the files of a folder on; writes their number."""
    done = 0

    def hook(event, arguments):
        nonlocal done
        if event in EVENTS and (event == "fcntl.flock" or str(folder) in str(arguments[0])):
            reads = (event == "open" and "r" in str(arguments[1])) or event == "os.remove"
            done += 1
            if 0 <= first < done and not (act is fill_disk and reads):
                act()

    sys.addaudithook(hook)
    try:
        _run(arguments, os.getcwd(), dict(os.environ), texts, asking=None)
    finally:
        Path(count).write_text(str(done))


def run_disturbed(act, first, folder, texts=(os.devnull, os.devnull), count=os.devnull):
    process = COMMANDS.Process(
        target=disturbed, args=(act, first, [*RUN, f"--output={folder}"], folder, texts, count)
    )
    process.start()
    process.join()
    return process.exitcode


def killed_after(seconds, folder):
    process = start(*RUN, f"--output={folder}")
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def result(folder):
    """The weights of the best model, the metrics that do not tell the time, and the names of files."""
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    clock = lines[0].index("images_per_second")
    names = {path.name for path in folder.iterdir()}
    return model.get_weights(), [line[:clock] + line[clock + 1 :] for line in lines], names


def check_equal(one, other):
    for weights in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(*weights)
    assert one[1:] == other[1:]


def finish(folder):
    assert killed_after(100, folder) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of an undisturbed run, and the number of its operations on files."""
    folder, count = tmp_path_factory.mktemp("whole") / "run", tmp_path_factory.mktemp("count") / "count"
    assert run_disturbed(kill, -1, folder, count=count) == 0
    return result(folder), int(count.read_text())


def test_kills_at_operations_on_files(whole, tmp_path):
    """In one run: each start is killed later than the one before."""
    expected, operations = whole
    assert operations > 50
    for operation in (2, 7, operations // 2):
        assert run_disturbed(kill, operation, tmp_path / "run") == -signal.SIGKILL
    finish(tmp_path / "run")
    check_equal(result(tmp_path / "run"), expected)


def fill_up(operation, folder, tmp_path):
    """One sentence and the exit code of a requeue; what was there goes on."""
    texts = [tmp_path / "stdout", tmp_path / "stderr"]
    assert run_disturbed(fill_disk, operation, folder, texts) == 75
    errors = texts[1].read_text()
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("kvision-")]
    assert line.startswith("kvision-train: No space left on device: ")
    assert "goes on" in line
    for path in texts:
        path.unlink()


def test_a_full_disk(whole, tmp_path):
    expected, operations = whole
    for operation in (1, 4, 2 * operations // 3):
        fill_up(operation, tmp_path / "run", tmp_path)
    finish(tmp_path / "run")
    check_equal(result(tmp_path / "run"), expected)


@pytest.mark.slow
def test_a_kill_and_a_full_disk_at_more_operations_on_files(whole, tmp_path):
    expected, operations = whole
    for operation in range(random.randrange(9), operations - 5, 9):  # the last are not the same each time
        folder = tmp_path / f"run{operation}"
        assert run_disturbed(kill, operation, folder) == -signal.SIGKILL
        finish(folder)
        check_equal(result(folder), expected)
        fill_up(operation, tmp_path / f"full{operation}", tmp_path)
        finish(tmp_path / f"full{operation}")
        check_equal(result(tmp_path / f"full{operation}"), expected)


@pytest.mark.slow
def test_forty_kills_at_random_moments(whole, tmp_path):
    started = time.monotonic()
    finish(tmp_path / "timed")
    seconds = time.monotonic() - started
    kills = runs = 0
    while kills < 40:
        folder = tmp_path / f"run{runs}"
        while (code := killed_after(random.uniform(0, seconds), folder)) == -signal.SIGKILL:
            kills += 1
        assert code == 0
        runs += 1
        check_equal(result(folder), whole[0])
    print(f"{kills} kills in {runs} runs")
