"""Runs that are killed anywhere end with the bits of one that was not."""

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
    "--learning_rate=0.01", "--deterministic", "--ema_decay=0.9", "--steps_per_loop=2", "--checkpoint_steps=5",
]  # fmt: skip
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock"}


def killed_at(operation, arguments, folder, count):
    """Kills itself at the n-th operation on a file of a folder; writes their number where it comes to its end."""
    done = 0

    def hook(event, arguments):
        nonlocal done
        if event in EVENTS and (event == "fcntl.flock" or str(folder) in str(arguments[0])):
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(hook)
    try:
        _run(arguments, os.getcwd(), dict(os.environ), (os.devnull, os.devnull))
    finally:
        Path(count).write_text(str(done))


def run_until_killed(operation, folder, count):
    process = COMMANDS.Process(
        target=killed_at, args=(operation, [*RUN, f"--output={folder}"], str(folder), str(count))
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
    """The weights of the model that was kept, and the metrics that do not tell the time."""
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    clock = lines[0].index("images_per_second")
    left = {path.name for path in folder.iterdir()} | {path.name for path in (folder / "checkpoints").iterdir()}
    return model.get_weights(), [line[:clock] + line[clock + 1 :] for line in lines], left


def check_equal(one, other):
    for weights in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(*weights)
    assert one[1:] == other[1:]


def finish(folder):
    assert killed_after(100, folder) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run of its own makes, the number of its operations on files, and the seconds it takes."""
    folder, count = tmp_path_factory.mktemp("whole") / "run", tmp_path_factory.mktemp("count") / "count"
    started = time.monotonic()
    assert run_until_killed(-1, folder, count) == 0
    return result(folder), int(count.read_text()), time.monotonic() - started


def test_kills_at_operations_on_files(whole, tmp_path):
    """In one run: each start is killed later than the one before."""
    expected, operations, _ = whole
    assert operations > 50
    for operation in (2, 7, operations // 2):
        assert run_until_killed(operation, tmp_path / "run", tmp_path / "count") == -signal.SIGKILL
    finish(tmp_path / "run")
    check_equal(result(tmp_path / "run"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_a_kill_at_each_operation_on_files(whole, part, tmp_path):
    expected, operations, _ = whole
    for operation in range(part, operations, 5):
        folder = tmp_path / f"run{operation}"
        assert run_until_killed(operation, folder, tmp_path / "count") == -signal.SIGKILL
        finish(folder)
        check_equal(result(folder), expected)


@pytest.mark.slow
def test_forty_kills_at_random_moments(whole, tmp_path):
    expected, _, seconds = whole
    chance = random.Random(int(os.environ.get("KILLS_SEED", "0")))
    kills = runs = 0
    while kills < 40:
        folder = tmp_path / f"run{runs}"
        while (code := killed_after(chance.uniform(0, 1.1 * seconds), folder)) == -signal.SIGKILL:
            kills += 1
        assert code == 0
        runs += 1
        check_equal(result(folder), expected)
    print(f"{kills} kills in {runs} runs")
