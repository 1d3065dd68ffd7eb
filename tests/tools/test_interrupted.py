"""kvision-train under signals and kills, and where it goes on."""

import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from helpers import command, start

from kvision_tools.startup import REQUEUE

RANDOM = [  # dropout, stochastic depth, augmentation and a moving average; the same bits again
    "--model=efficientnet_lite0", "--model_kwarg=width_multiplier=0.1", "--model_kwarg=depth_multiplier=0.3",
    "--model_kwarg=drop_path_rate=0.3", "--model_kwarg=dropout_rate=0.3", "--image_size=32", "--data=digits",
    "--augment=crop_flip", "--ema_decay=0.9", "--batch_size=64", "--epochs=2", "--deterministic",
    "--steps_per_loop=2", "--checkpoint_steps=5",
]  # fmt: skip


def blocks(pid, number):
    """Whether a process has begun to listen to a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16) >> (number - 1) & 1


def test_signals_are_heard_from_the_first_moment(tmp_path):
    run = tmp_path / "run"
    endless = ["--model=lenet5", "--channels=1", "--data=digits", "--epochs=10000", f"--output={run}"]
    for asks in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = start("kvision-train", *endless)
        while not blocks(process.pid, asks):
            assert process.is_alive()
        os.kill(process.pid, asks)
        process.join()
        assert process.exitcode == REQUEUE
    said = tmp_path / "stderr"
    process = start("kvision-train", *endless[1:], "--model=mobilenet_v3_small", texts=(os.devnull, said))
    while newest(run) < 0:
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(1)  # its step is traced, which takes longer
    os.kill(process.pid, signal.SIGTERM)
    process.join(1)
    assert process.exitcode == REQUEUE
    assert "SIGTERM before the training began; the same command goes on from" in said.read_text()
    said.unlink()
    for asks in (signal.SIGINT, signal.SIGHUP):
        process = start("kvision-train", *endless, texts=(os.devnull, said))
        before = max(newest(run), 0)
        while newest(run) <= before:
            assert process.is_alive()
            time.sleep(0.01)
        os.kill(process.pid, asks)
        process.join()
        assert process.exitcode == REQUEUE
        words = f"saved after step {newest(run)}; `kvision-train --flagfile={run}/flags.txt` goes on."
        assert f"{asks.name}: {words}" in said.read_text()
        said.unlink()


def newest(run):
    steps = [int(path.stem.removeprefix("step_")) for path in run.glob("checkpoints/step_*.safetensors")]
    return max(steps, default=-1)


def tensors(run):
    return safetensors.numpy.load_file(run / f"checkpoints/step_{newest(run):08d}.safetensors")


def kill_after(step, run, number):
    """Starts the run and signals it a moment after a checkpoint of that step or a later one."""
    process = start("kvision-train", *RANDOM, f"--output={run}")
    while newest(run) < step and process.is_alive():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    os.kill(process.pid, number)
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_killed_runs_end_with_the_bits_of_an_unbroken_one(tmp_path):
    command("kvision-train", *RANDOM, f"--output={tmp_path / 'whole'}")
    run = tmp_path / "killed"
    for step in (random.randrange(1, 15), random.randrange(20, 32)):
        assert kill_after(step, run, signal.SIGKILL) == -signal.SIGKILL
        assert step <= newest(run) < 44
    before = newest(run)
    asks = random.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    assert kill_after(before + 1, run, asks) == REQUEUE
    assert before < newest(run) < 44
    assert f"Going on after step {newest(run)} of" in command("kvision-train", *RANDOM, f"--output={run}")
    whole, killed = tensors(tmp_path / "whole"), tensors(run)
    assert whole.keys() == killed.keys()
    assert any("seed_generator" in name for name in whole)
    assert any(name.startswith("loop/ema") for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, killed[name], err_msg=name)
    metrics = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "killed")]
    columns = metrics[0][0].split(",")
    for rows in zip(*metrics, strict=True):
        for column, *values in zip(columns, *(row.split(",") for row in rows), strict=True):
            assert values[0] == values[1] or column == "images_per_second"
