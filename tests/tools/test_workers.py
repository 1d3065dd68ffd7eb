"""Workers: how they find and meet each other, train as one, and are started again."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import COMMANDS, command, dark_and_light

from kvision_tools.launch import _free_ports
from kvision_tools.rendezvous import meet
from kvision_tools.strategy import Cluster, find_cluster
from kvision_tools.train import entry

FLAGS = [  # images without flat parts, where a rounding error would move many units over a kink at once
    "--model=resnet18", "--model_kwarg=filters=8", "--model_kwarg=depths=(1,1,1,1)", "--image_size=64",
    "--norm_momentum=0.9", "--batch_size=16", "--epochs=5", "--learning_rate=0.0001", "--sync_batch_norm",
    "--checkpoint_steps=3", "--steps_per_loop=3",
]  # fmt: skip


def cluster(count=2, index=0):
    return Cluster(tuple(f"localhost:{port}" for port in _free_ports(count)), index)


def meet_all(addresses, facts, timeout=5.0):
    """What each worker is told; None for nothing wrong."""

    def one(index):
        try:
            meet(Cluster(addresses, index), facts[index], timeout)
        except (ValueError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, facts))


def test_workers_meet():
    here = cluster(3).addresses
    same = {"flags": ["--seed=0"]}
    assert meet_all(here, {0: same, 1: same, 2: same}) == [None] * 3
    differ = meet_all(here, {0: same, 1: same, 2: {"flags": ["--seed=1"]}})
    assert differ == [f"worker 2 ({here[2]}) has other flags than worker 0: --seed=0, --seed=1."] * 3
    late = meet_all(here, {0: same, 2: same}, timeout=0.5)
    assert late == [f"worker 1 ({here[1]}) did not come within 0.5 seconds."] * 2
    assert meet_all(here, {1: same}, 0.5) == [f"worker 0 ({here[0]}) did not come within 0.5 seconds."]


def config(addresses, index):
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def test_clusters(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    assert find_cluster("auto") == Cluster()
    with pytest.raises(ValueError, match="needs a cluster: TF_CONFIG, a SLURM step"):
        find_cluster("multiworker")
    monkeypatch.setenv("TF_CONFIG", config(["a:1", "b:2"], 1))
    assert find_cluster("auto") == Cluster(("a:1", "b:2"), 1)
    assert find_cluster("one") == Cluster()
    chief = {"cluster": {"chief": ["c:3"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert find_cluster("auto") == Cluster(("c:3", "a:1"), 1)
    for wrong in ("{", "[]", config(["a:1"], 1), json.dumps({"cluster": {"worker": []}})):
        monkeypatch.setenv("TF_CONFIG", wrong)
        with pytest.raises(ValueError, match="TF_CONFIG must be"):
            find_cluster("auto")
    monkeypatch.delenv("TF_CONFIG")
    slurm = {"STEP_NUM_TASKS": 3, "PROCID": 2, "STEP_NODELIST": "n[07-08]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert find_cluster("auto") == Cluster(("n07:8888", "n07:8889", "n08:8888"), 2)


def test_what_is_wrong_with_workers_is_one_sentence(monkeypatch, tmp_path):
    flags = ["kvision-train", *FLAGS, "--data=digits", f"--output={tmp_path / 'run'}", "--worker_timeout=1"]
    addresses = cluster().addresses
    monkeypatch.setenv("TF_CONFIG", config(addresses, 0))
    assert f"worker 1 ({addresses[1]}) did not come within 1 seconds" in command(*flags, code=2)
    port = addresses[0].rpartition(":")[2]
    with socket.create_server(("", int(port))):
        sentence = command(*flags, code=2)
    assert f"Port {port} of worker 0 ({addresses[0]}) is in use" in sentence
    assert not (tmp_path / "run").exists()


def rows(run):
    with open(run / "metrics.csv") as file:
        return [[float(row[key]) for key in ("loss", "val_loss")] for row in csv.DictReader(file)]


def on_two_devices(arguments):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    sys.argv = arguments
    sys.exit(entry())


class Launched:
    """kvision-launch with two workers; `lines` are what it printed."""

    def __init__(self, *arguments):
        script = Path(sys.executable).parent / "kvision-launch"
        self.process = subprocess.Popen(
            [script, "--workers=2", "--grace_seconds=20", "--", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.lines = []
        threading.Thread(target=self.read).start()

    def read(self):
        with self.process.stdout as output:
            self.lines.extend(output)

    def wait_for_step(self, run, step):
        while not any(int(path.stem[-8:]) >= step for path in run.glob("checkpoints/*.safetensors")):
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.02)

    def workers(self):
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


def two_workers(*outputs):
    """Processes that train together, each with its own `--output`."""
    addresses = cluster().addresses
    train = [Path(sys.executable).parent / "kvision-train", *FLAGS, "--data=digits"]
    return [
        subprocess.Popen(
            [*train, f"--output={output}"],
            env=os.environ | {"TF_CONFIG": config(addresses, i)}, stderr=subprocess.PIPE, text=True,
        )
        for i, output in enumerate(outputs)
    ]  # fmt: skip


@pytest.mark.slow
def test_workers_that_do_not_see_one_folder(tmp_path):
    for worker in two_workers(tmp_path / "one", tmp_path / "two"):
        _, printed = worker.communicate(timeout=100)
        assert worker.returncode == 2
        assert "`--output` must be a folder that all workers see; got" in printed.splitlines()[-1]


@pytest.mark.slow
def test_two_workers_that_are_ended_and_killed_give_the_losses_of_one(tmp_path, tmp_path_factory):
    one, two, run = tmp_path / "one", tmp_path / "two", tmp_path / "launched"
    flags = [*FLAGS, f"--data=folder:{dark_and_light(tmp_path_factory.mktemp('images'))}"]
    command("kvision-train", *flags, f"--output={one}")
    mirrored = ["kvision-train", *flags, "--strategy=mirrored", f"--output={two}"]
    process = COMMANDS.Process(target=on_two_devices, args=(mirrored,))
    process.start()
    process.join()
    assert process.exitcode == 0
    np.testing.assert_allclose(rows(two), rows(one), rtol=1e-5)

    arguments = [Path(sys.executable).parent / "kvision-train", *flags, f"--output={run}"]
    launched = Launched(*arguments)
    launched.wait_for_step(run, 3)
    launched.process.send_signal(signal.SIGTERM)
    assert launched.process.wait(60) == 75, "".join(launched.lines)
    assert not (run / "checkpoints/step_00000020.safetensors").exists()
    launched = Launched(*arguments)
    launched.wait_for_step(run, 8)
    os.kill(launched.workers()[1], signal.SIGKILL)
    assert launched.process.wait(200) == 0, "".join(launched.lines)
    printed = "".join(launched.lines)
    assert "A worker ended with exit code -9; 3 restarts left." in printed
    assert "[0] Going on after step" in printed
    assert "[1] Going on after step" in printed
    np.testing.assert_allclose(rows(run), rows(one), rtol=1e-5)
    differ = Launched(*arguments, "--seed=3")
    assert differ.process.wait(60) == 2
    assert "holds a run with other flags (--seed=0, --seed=3)" in "".join(differ.lines)
    assert len(rows(run)) == 5
    anew = Launched(*arguments, "--seed=3", "--overwrite")
    while (run / "checkpoints/step_00000020.safetensors").exists():
        assert anew.process.poll() is None, "".join(anew.lines)
        time.sleep(0.02)
    anew.wait_for_step(run, 8)
    os.kill(anew.workers()[0], signal.SIGKILL)
    assert anew.process.wait(200) == 0, "".join(anew.lines)
    assert "[0] Going on after step" in "".join(anew.lines)  # and did not begin anew once more
    assert rows(run) != rows(one)


@pytest.mark.slow
def test_a_worker_that_lost_another_says_so(tmp_path):
    run = tmp_path / "run"
    first, second = two_workers(run, run)
    while not [*run.glob("checkpoints/step_*3.safetensors")]:
        assert first.poll() is None
        time.sleep(0.02)
    second.kill()
    _, printed = first.communicate(timeout=100)
    second.communicate()
    assert first.returncode == 1
    assert printed.endswith("Another worker was lost; the same command on all goes on.\n")
