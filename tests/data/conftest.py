"""Fixtures of the tests of datasets."""

import numpy as np
import pytest
from PIL import Image

from kvision.names import say_once


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    """An empty cache folder for each test; sentences that are printed once are printed anew."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    say_once.cache_clear()
    return folder / "kvision"


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(10):
            image = np.full((20, 30 + i, 3), 100 * label + i, "uint8")
            Image.fromarray(image).save(tmp_path / name / f"{i}.{'png' if i % 2 else 'jpg'}")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    whole = (tmp_path / "dog" / "0.jpg").read_bytes()
    (tmp_path / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path
