"""What commands print when they end."""

import logging
import os

import keras
import pytest

from kvision import _cli


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a\nb   c"), "a b c"),
        (ValueError("\x1b[2J\x07 é\u202e\udcff"), r"\x1b[2J\x07 é\u202e\udcff"),
        (FileNotFoundError(2, "No such file", "x\x1b"), r"No such file: 'x\x1b'."),
    ],
)
def test_a_sentence_has_one_line_and_steers_no_terminal(error, expected, capsys):
    with pytest.raises(SystemExit) as end, _cli.user_errors():
        raise _cli.UserError(*error.args) if isinstance(error, ValueError) else error
    assert end.value.code == 2
    assert capsys.readouterr().err.partition(": ")[2] == expected + "\n"


def test_a_long_message_is_cut_in_its_middle(capsys):
    with pytest.raises(SystemExit):
        _cli.fail("begin " + 9999 * "x" + " end")
    said = capsys.readouterr().err
    assert len(said) < 800
    assert "begin x" in said
    assert said.endswith("x end\n")


@pytest.mark.parametrize("text", ["~/x", "folder:~/x", "tfrecord:~/x*"])
def test_home_is_expanded(text):
    found = _cli.HOME.fullmatch(text)
    assert (found[1] or "") + os.path.expanduser(found[2]) == text.replace("~", os.path.expanduser("~"))


def test_commands_compute_in_float32_whatever_keras_json_says(monkeypatch):
    monkeypatch.setattr(_cli.app, "run", lambda *arguments, **keywords: None)
    monkeypatch.setattr(logging, "disable", lambda level: None)
    keras.config.set_floatx("float16")
    try:
        _cli.run(test_commands_compute_in_float32_whatever_keras_json_says)
        assert keras.config.floatx() == "float32"
    finally:
        keras.config.set_floatx("float32")
