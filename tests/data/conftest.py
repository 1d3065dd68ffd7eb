"""Fixtures of the tests of datasets."""

import numpy as np
import pytest
from PIL import Image


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
