"""kvision-train as a shell runs it."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import TINY, command, dark_and_light, rows
from PIL import Image

from kvision import cli, labels
from kvision_tools.commands import train


def test_a_run_folder_is_complete(run, folder):
    output, printed = run
    assert {path.name for path in output.iterdir()} == {
        ".kvision.lock", "checkpoints", "curves.png", "dataset.json", "flags.txt", "labels.txt",
        "metrics.csv", "model.keras", "run.json", "tensorboard",
    }  # fmt: skip
    assert (output / "labels.txt").read_text() == "dark\nlight\n"
    assert [row["epoch"] for row in rows(output)] == ["1", "2", "3", "4"]
    assert float(rows(output)[-1]["loss"]) < float(rows(output)[0]["loss"])
    assert list((output / "tensorboard").rglob("events*"))
    with Image.open(output / "curves.png") as curves:
        assert curves.size[0] > 500
    assert f"'{folder / 'dark' / 'notes.txt'}' failed to decode: its format is none of JPEG" in printed
    assert "Skipped 1 unreadable file: 1 of 'dark'." in printed
    assert labels.read_from_keras(output / "model.keras") == ("dark", "light")


def test_flags_repeat_a_run(run, tmp_path):
    output, _ = run
    command("kvision-train", f"--flagfile={output}/flags.txt", f"--output={tmp_path / 'again'}")
    assert [row["loss"] for row in rows(tmp_path / "again")] == [row["loss"] for row in rows(output)]


def test_all_flags_at_their_defaults_are_taken_from_a_file(tmp_path):
    """As `flags.txt` has them, of a run without augmentation."""
    (tmp_path / "flags.txt").write_text("--augment=none\n--min_crop_area=0.08\n--epochs=1\n")
    flags = [*TINY, "--data=digits", f"--flagfile={tmp_path / 'flags.txt'}", "--dry_run"]
    assert "images" in command("kvision-train", *flags, f"--output={tmp_path / 'run'}")
    sentence = command("kvision-train", *flags, f"--output={tmp_path / 'flags.txt' / 'run'}", code=2)
    assert "flags.txt' is a file" in sentence


def test_a_run_from_the_weights_of_another(run, tmp_path):
    """The classes differ; the frozen trunk is that of the other's model.keras, bit for bit."""
    command("kvision-train", *TINY, f"--weights={run[0] / 'model.keras'}", "--data=digits", "--freeze=trunk",
            "--epochs=1", "--model_kwarg=name=left", f"--output={tmp_path / 'new'}")  # fmt: skip
    first, second = (keras.saving.load_model(path / "model.keras") for path in (run[0], tmp_path / "new"))
    assert (second.name, second.output_shape) == ("left", (None, 10))
    *trunk, _, _ = first.weights
    assert len(trunk) > 50
    for one, other in zip(trunk, second.weights, strict=False):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@pytest.mark.slow
def test_settings_of_keras(tmp_path):
    """The arithmetic is that of --precision, whatever keras.json says; another backend is refused."""
    script = Path(sys.executable).parent / "kvision-train"
    arguments = ["--model=lenet5", "--data=digits", "--epochs=1", "--deterministic", "--batch_size=300"]
    command("kvision-train", *arguments, f"--output={tmp_path / 'float32'}")
    expected = rows(tmp_path / "float32")[0]
    (tmp_path / "keras.json").write_text(json.dumps({"floatx": "float16"}))
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    subprocess.run([script, *arguments, f"--output={tmp_path / 'float16'}"], env=environment, check=True)
    (row,) = rows(tmp_path / "float16")
    assert row | {"images_per_second": 0} == expected | {"images_per_second": 0}
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    ended = subprocess.run(
        [script, *arguments, f"--output={tmp_path / 'jax'}"], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "'backend' of Keras must be 'tensorflow'; got 'jax'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "jax").exists()


def test_strict_ends_at_what_is_no_image(folder, tmp_path):
    sentence = command("kvision-train", *TINY, "--batch_size=16", f"--data=folder:{folder}", "--strict",
                       f"--output={tmp_path / 'run'}", code=2)  # fmt: skip
    assert "notes.txt" in sentence


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "x", "y"), 75),
        (OSError(errno.ENOTCONN, "x", "y"), 75),
        (FileNotFoundError("'a.png' is not there any more."), 75),
        (OSError(errno.EISDIR, "x", "y"), 2),
        (OSError(errno.EACCES, "x", "y"), 2),
        (PermissionError("'a.png' may not be read."), 2),
        (OSError(errno.ELOOP, "x", "y"), 2),
    ],
)
def test_errors_that_another_start_would_meet_again_are_not_requeued(error, code, capsys):
    with pytest.raises(SystemExit) as end, cli.user_errors(), train.requeued("it goes on", train.may_pass):
        raise error
    assert end.value.code == code
    assert ("Once that is solved, it goes on." in capsys.readouterr().err) == (code == 75)


def test_warm_ups_that_do_not_fit_and_folders_that_cannot_be(tmp_path):
    images = dark_and_light(tmp_path)
    arguments = ["kvision-train", *TINY, f"--data=folder:{images}"]
    sentence = command(*arguments, "--epochs=2", "--warmup_epochs=2", "--ema_decay=1", "--output=", code=2)
    assert "`--warmup_epochs` (2.0) must be below `--epochs` (2)." in sentence
    assert "`--ema_decay` must be between 0 and 1; got 1.0." in sentence
    assert "`--output` must be a folder; got ''." in sentence
    sentence = command(*arguments, "--epochs=1", "--warmup_epochs=0.9", f"--output={tmp_path}-run", code=2)
    assert "`--warmup_epochs` (0.9) must end before the run does, after 1 step." in sentence
    for inside in (images, images / "dark", images / "runs" / "new"):
        sentence = command(*arguments, f"--output={inside}", code=2)
        assert f"must be outside the folder of `--data=folder:{images}`; got '{inside}'." in sentence
    assert {path.name for path in images.iterdir()} == {"dark", "light"}
