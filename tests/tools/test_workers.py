"""Workers of kvision-train: they train as one, and are started again."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from helpers import COMMANDS, command, dark_and_light, mostly_slow, start

from kvision_tools.commands.launch import _free_ports
from kvision_tools.commands.train import entry

FLAGS = [  # images without flat parts, where a rounding error would move many units over a kink at once
    "--model=resnet18", "--model_kwarg=filters=8", "--model_kwarg=depths=(1,1,1,1)", "--image_size=64",
    "--norm_momentum=0.9", "--batch_size=16", "--epochs=5", "--learning_rate=0.0001", "--sync_batch_norm",
    "--checkpoint_steps=3", "--steps_per_loop=3",
]  # fmt: skip

FEW_LAYERS = [  # whose steps are traced in less time
    "--model=vgg11_bn", "--model_kwarg=hidden_filters=16", "--model_kwarg=filters=(8,8,8,8,8)",
    "--model_kwarg=depths=(1,1,1,1,1)", "--model_kwarg=dropout_rate=0", "--image_size=64",
    "--norm_momentum=0.9", "--warmup_epochs=0", "--learning_rate=0.01",
]  # fmt: skip


def free_addresses():
    return [f"localhost:{port}" for port in _free_ports(2)]


def config(addresses, index):
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def test_what_is_wrong_with_workers_is_one_sentence(monkeypatch, tmp_path):
    flags = ["kvision-train", *FLAGS, "--data=digits", f"--output={tmp_path / 'run'}", "--worker_timeout=1"]
    addresses = free_addresses()
    monkeypatch.setenv("TF_CONFIG", config(addresses, 0))
    assert f"worker 1 ({addresses[1]}) did not come within 1 seconds" in command(*flags, code=2)
    port = addresses[0].rpartition(":")[2]
    with socket.create_server(("", int(port))):
        sentence = command(*flags, code=2)
    assert f"Port {port} of worker 0 ({addresses[0]}) is in use" in sentence
    assert not (tmp_path / "run").exists()


def pair(folders, *arguments):
    """The exit codes and the last lines of two workers, each in a folder of its own."""
    addresses, processes = free_addresses(), []
    for i, folder in enumerate(folders):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TF_CONFIG", config(addresses, i))
            patch.chdir(folder)
            processes.append(start("kvision-train", *arguments, texts=[folder / "stdout", folder / "stderr"]))
    ends = []
    for process, folder in zip(processes, folders, strict=True):
        process.join(100)
        ends.append((process.exitcode, (folder / "stderr").read_text().splitlines()[-1:]))
    return addresses, ends


@pytest.mark.parametrize("change", mostly_slow(["fewer", "renamed", "other", "none"], "renamed"))
def test_workers_with_other_data_end_in_one_sentence(tmp_path, change):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        (folder / "images").mkdir(parents=True)
        dark_and_light(folder / "images")
    images = folders[1] / "images"
    if change == "fewer":
        for i in range(10):
            (images / "dark" / f"{i}.png").unlink()
    elif change == "renamed":
        (images / "dark").rename(images / "black")
    elif change == "other":
        (images / "dark/0.png").write_bytes((images / "dark/1.png").read_bytes())
    else:
        shutil.rmtree(images)
    flags = ["--data=folder:images", "--worker_timeout=60", f"--output={tmp_path / 'run'}"]
    addresses, ends = pair(folders, *FLAGS, *flags)
    has = f"worker 1 ({addresses[1]}) has other training images than worker 0: "
    expected = {
        "fewer": has + "class 'dark' has 24 images instead of 32.",
        "renamed": has + "class 'dark' is gone, class 'black' is new.",
        "other": has + "images have other names, sizes, contents, labels or boxes, or another order.",
        "none": "There is no folder 'images'.",
    }[change]
    for code, (sentence,) in ends:
        assert (code, sentence.startswith("kvision-train: ")) == (2, True), sentence
        assert expected in sentence
    assert not (tmp_path / "run").exists()


def test_a_step_with_synchronized_batch_norm_is_that_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (tmp_path / "images").mkdir()
    flags = [
        *FEW_LAYERS, f"--data=folder:{dark_and_light(tmp_path / 'images')}", "--batch_size=64", "--epochs=1",
    ]  # fmt: skip
    command("kvision-train", *flags, f"--output={one}")
    workers = [tmp_path / "first", tmp_path / "second"]
    for folder in workers:
        folder.mkdir()
    _, ends = pair(workers, *flags, "--sync_batch_norm", f"--output={two}")
    assert [code for code, _ in ends] == [0, 0], ends
    np.testing.assert_allclose(rows(two), rows(one), rtol=1e-5)
    for step in (0, 1):
        name = f"checkpoints/step_{step:08d}.safetensors"
        expected, got = (safetensors.numpy.load_file(run / name) for run in (one, two))
        assert {*expected} == {*got}
        for key in expected:
            np.testing.assert_allclose(got[key], expected[key], rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_workers_validate_the_model_that_is_saved(tmp_path):
    """Each has its own statistics of batch norms that are not synchronised; the first one's are saved."""
    (tmp_path / "images").mkdir()
    data = f"--data=folder:{dark_and_light(tmp_path / 'images')}"
    workers = [tmp_path / "first", tmp_path / "second"]
    for folder in workers:
        folder.mkdir()
    flags = [*FEW_LAYERS, data, "--batch_size=16", "--epochs=2", "--ema_decay=0.5"]
    _, ends = pair(workers, *flags, f"--output={tmp_path / 'run'}")
    assert [code for code, _ in ends] == [0, 0], ends
    with open(tmp_path / "run/metrics.csv") as file:
        losses = [float(row[f"{kind}_loss"]) for row in csv.DictReader(file) for kind in ("val", "val_ema")]
    printed = command("kvision-evaluate", f"--model={tmp_path / 'run'}")
    assert re.search(r"loss (\d+\.\d+)", printed)[1] in {f"{loss:.4f}" for loss in losses}


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
        return [int(pid) for pid in text.split()][1:]  # the first is the watch


def two_workers(*outputs):
    """Processes that train together, each with its own `--output`."""
    addresses = free_addresses()
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
    assert "holds a run with other flags (the run has --seed=0, this command --seed=3)" in "".join(
        differ.lines
    )
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
