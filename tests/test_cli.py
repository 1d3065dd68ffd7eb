"""What all commands share."""

import logging

import keras

from kvision import _cli


def test_commands_compute_in_float32_whatever_keras_json_says(monkeypatch):
    monkeypatch.setattr(_cli.app, "run", lambda *arguments, **keywords: None)
    monkeypatch.setattr(logging, "disable", lambda level: None)
    keras.config.set_floatx("float16")
    try:
        _cli.run(test_commands_compute_in_float32_whatever_keras_json_says)
        assert keras.config.floatx() == "float32"
    finally:
        keras.config.set_floatx("float32")
