"""Fixtures of the tests of commands and run folders."""

import pytest
from helpers import TINY, command, dark_and_light
from run_folders import parse


@pytest.fixture
def parsed():
    """Parses flags of kvision-train."""
    return parse


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Two classes, and an unreadable file."""
    root = dark_and_light(tmp_path_factory.mktemp("images"))
    (root / "dark" / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="session")
def run(folder, tmp_path_factory):
    """A finished run on them, and what kvision-train printed."""
    output = tmp_path_factory.mktemp("runs") / "run"
    printed = command("kvision-train", *TINY, f"--data=folder:{folder}", "--epochs=4", "--warmup_epochs=0.5",
                      "--batch_size=16", f"--output={output}", "--augment=crop_flip", "--crop=0.9",
                      "--interpolation=bicubic")  # fmt: skip
    return output, printed
