"""Start of commands, and their output when they end."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvision
from kvision import cli


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a\nb   c"), "a b c"),
        (
            ValueError("`verbosity=True`, `stderrthreshold=error` and `bogus=1`"),
            "`--verbosity`, `--stderrthreshold=error` and `bogus=1`",
        ),
        (ValueError("\x1b[2J\x07 é\u202e\udcff"), r"\x1b[2J\x07 é\u202e\udcff"),
        (FileNotFoundError(2, "No such file", "x\x1b"), r"No such file: 'x\x1b'."),
        (OSError(28, "No space left on device"), "No space left on device."),
    ],
)
def test_a_sentence_has_one_line_and_steers_no_terminal(error, expected, capsys):
    with pytest.raises(SystemExit) as end, cli.user_errors():
        raise cli.UserError(*error.args) if isinstance(error, ValueError) else error
    assert end.value.code == (75 if getattr(error, "errno", None) == 28 else 2)
    assert capsys.readouterr().err.partition(": ")[2] == expected + "\n"


@pytest.mark.parametrize("zeros", [tf.zeros, np.zeros])
def test_too_little_memory_is_one_sentence(zeros, capsys):
    with pytest.raises(SystemExit) as end, cli.user_errors():
        zeros((4_000_000, 4_000_000))
    assert end.value.code == 2
    said = capsys.readouterr().err.partition(": ")[2]
    assert re.fullmatch(r"Out of memory: smaller .*shape.*4000000, ?4000000.*\)\.\n", said)


def test_a_long_message_is_cut_in_its_middle(capsys):
    with pytest.raises(SystemExit):
        cli.fail("begin " + 9999 * "x" + " end")
    said = capsys.readouterr().err
    assert len(said) < 800
    assert "begin x" in said
    assert said.endswith("x end\n")


@pytest.mark.parametrize("text", ["~/x", "folder:~/x", "tfrecord:~/x*"])
def test_home_is_expanded(text):
    found = cli.HOME.fullmatch(text)
    assert (found[1] or "") + os.path.expanduser(found[2]) == text.replace("~", os.path.expanduser("~"))


def test_commands_compute_in_float32_whatever_keras_json_says():
    keras.config.set_floatx("float16")
    try:
        cli.import_keras()
        assert keras.config.floatx() == "float32"
    finally:
        keras.config.set_floatx("float32")


CHILD = """
import importlib.metadata, sys

def command(*arguments):
    sys.argv[1:] = arguments
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=sys.argv[0])
    try:
        return script.load()()
    except SystemExit as end:
        return end.code

sys.argv = sys.argv[1:]
"""


def child(name, code, **environment):
    """Runs Python code in a process of its own, where `command(...)` is the command of this name."""
    environment = {key: value for key, value in os.environ.items() if key != cli.LOG_LEVEL} | environment
    call = [sys.executable, "-c", CHILD + code, name]
    return subprocess.run(call, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("by_name", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_command_opens_networks_by_name_and_from_files(by_name, tmp_path):
    """In a process of its own: others may have imported what registers networks and layers.

    It prints no notice of TensorFlow's libraries.
    """
    model = kvision.models.lenet5(num_classes=2)
    model.save(tmp_path / "lenet5.keras")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "1.png")
    file = tmp_path / "lenet5.keras"
    names = ["--model=lenet5", f"--weights={file}"] if by_name else [f"--model={file}"]
    done = child("kvision-predict", f"assert command(*{[*names, str(tmp_path / '1.png')]}) is None")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +\d+\.\d %  [01]  [01]$", done.stdout, re.MULTILINE)
    assert done.stderr == ""


@pytest.mark.slow
def test_attempts_to_reach_the_hub_are_one_line(tmp_path):
    """Also in a new process, where its client has not made ready to log."""
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "1.png")
    arguments = "--model=resnet18", "--weights=imagenet", str(tmp_path / "1.png")
    code = f"import time; time.sleep = lambda seconds: None\nassert command(*{arguments}) == 2"
    done = child("kvision-predict", code, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    tries, sentence = done.stderr.splitlines()
    assert tries == "The hub cannot be reached; trying again for about half a minute."
    assert "model.safetensors cannot be downloaded: the hub cannot be reached" in sentence


SCRIPTS = sorted(
    script.name
    for script in importlib.metadata.entry_points(group="console_scripts")
    if script.name.startswith("kvision-")
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_tensorflow_is_not_imported_before_the_flags_are_parsed(name):
    wrong = ("one", "more") if name == "kvision-info" else ()  # others lack something that they need
    done = child(
        name,
        "assert command('--help') == 0\n"
        "assert command('--no_such_flag') == 2\n"
        f"assert command(*{wrong}) == 2\n"
        "assert not {'keras', 'tensorflow'} & sys.modules.keys()",
    )
    assert done.returncode == 0, done.stderr


def test_nobody_has_to_read_all_of_the_help():
    for code in ("sys.exit(command('--helpfull'))", "sys.exit(command('--help'))"):
        code = f"import os; os.dup2(os.pipe()[1], 1)\n{code}"  # a pipe whose other end is closed
        code = code.replace("os.pipe()[1]", "(lambda ends: os.close(ends[0]) or ends[1])(os.pipe())")
        done = child("kvision-train", code)
        assert done.stderr == ""
        assert done.returncode == 1


def test_help_shows_defaults_and_how_switches_are_turned_off():
    printed = child("kvision-benchmark", "command('--help')").stdout
    assert "repeatable. (default: mobilenet_v2)" in printed
    printed = child("kvision-train", "command('--help')").stdout
    assert "  --[no]exif\n" in printed
    assert "(default: 0)" in printed
    assert "(default: 0.0)" in printed


def test_a_flag_that_is_missing_is_explained():
    said = "kvision-predict: `--model` is needed: Run folder, .keras file, or name of a network "
    assert child("kvision-predict", "command()").stderr.startswith(said)


def test_notices_are_sentences_without_the_time_and_the_thread():
    notice = "command(); import logging; logging.getLogger('kvision').warning('%s: fresh.', 'lenet5')"
    assert child("kvision-predict", notice).stderr.endswith(".\nlenet5: fresh.\n")


@pytest.mark.slow
def test_trainings_and_exports_print_their_own_lines_alone(tmp_path):
    scripts, run = Path(sys.executable).parent, tmp_path / "run"
    train = [scripts / "kvision-train", "--model=lenet5", "--channels=1", "--data=digits", "--epochs=1",
             "--batch_size=600", f"--output={run}"]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != cli.LOG_LEVEL}
    for command in (
        [scripts / "kvision-launch", "--workers=2", "--", *train],
        [scripts / "kvision-export", f"--model={run}", "--quantize=float32", "--images=20"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        printed = done.stdout + done.stderr
        assert str(run) in printed
        assert not re.search(r"[IWEF]\d{4} \d|WARNING|INFO|warn", printed), printed


def test_what_is_held_back_is_printed_where_tensorflow_cannot_be_imported(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'why\\n'); raise ImportError('broken')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = child("kvision-info", "sys.exit(command('lenet5'))", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr.startswith("why\nkvision-info: Keras cannot be imported: broken")


def test_another_backend_of_keras_is_one_sentence(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    done = child("kvision-info", "sys.exit(command('lenet5'))", KERAS_HOME=str(tmp_path))
    assert done.returncode == 2
    words = "The setting 'backend' of Keras must be 'tensorflow'; got 'jax'. Keras reads KERAS_BACKEND and"
    assert done.stderr.startswith(f"kvision-info: {words}")
    assert done.stderr.count("\n") == 1


def test_channels_first_are_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(cli.UserError, match="'image_data_format' of Keras must be 'channels_last'; got"):
            cli.import_keras()
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(("environment", "said"), [({}, ""), ({cli.LOG_LEVEL: "0"}, "I0000 a notice\n")])
def test_notices_of_tensorflows_libraries_are_for_who_asks_for_them(environment, said, tmp_path):
    """Beside a module of Keras' name, which takes less time."""
    (tmp_path / "keras.py").write_text(
        "import os, types\nos.write(2, b'I0000 a notice\\n')\n"
        "config = types.SimpleNamespace(set_floatx=str, backend=lambda: 'tensorflow', "
        "image_data_format=lambda: 'channels_last')\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = child(
        "kvision-info", "from kvision import cli; cli.import_keras()", PYTHONPATH=path, **environment
    )
    assert (done.returncode, done.stderr) == (0, said)
