"""Decoded and fitted images, beside Pillow's and timm's."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data import load, read_image
from kvision.data.images import decode, fit

TRANSFORMS = np.load(Path(__file__).parents[1] / "reference" / "transforms.npz")


def photograph(name):
    skimage = pytest.importorskip("skimage")
    return Path(skimage.__file__).parent / "data" / name


def test_fit_keeps_the_centre_and_the_aspect():
    image = np.zeros((10, 30, 3), "uint8")
    image[:, 10:20] = 200
    np.testing.assert_array_equal(fit(image, (10, 10)), np.full((10, 10, 3), 200))
    assert fit(image, (5, 15)).shape == (5, 15, 3)


@pytest.mark.parametrize("key", TRANSFORMS.files)
def test_fit_gives_timms_pixels(key):
    name, *size, crop, interpolation = key.split()
    image = decode(photograph(name).read_bytes(), 3)
    pixels = fit(image, [int(side) for side in size], crop=float(crop), interpolation=interpolation)
    difference = np.abs(pixels - TRANSFORMS[key].astype("float32"))
    assert difference.mean() < 0.4  # Pillow rounds after each direction
    assert difference.max() < 8  # and clips bicubic overshoots of the first
    assert 0 <= np.min(pixels) <= np.max(pixels) <= 255


def test_jpegs_are_decoded_as_pillow_does():
    path = photograph("rocket.jpg")
    np.testing.assert_array_equal(decode(path.read_bytes(), 3), Image.open(path).convert("RGB"))


def test_files_and_datasets_are_fitted_alike(tmp_path):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "rocket.jpg"
    path.write_bytes(photograph("rocket.jpg").read_bytes())
    (tmp_path / "a" / "again.jpg").write_bytes(path.read_bytes())  # a class of one has no second split
    how = {"crop": 0.875, "interpolation": "bicubic"}
    expected = fit(decode(path.read_bytes(), 3), (64, 64), **how)
    np.testing.assert_array_equal(read_image(path, (64, 64), **how), expected)
    data = load(f"folder:{tmp_path}", "val", image_size=(64, 64), val_fraction=0.5, **how)
    [batch] = data.dataset.as_numpy_iterator()
    np.testing.assert_array_equal(batch["image"], [expected])


@pytest.mark.parametrize("how", [{"crop": 0.0}, {"crop": 87.5}, {"interpolation": "cubic"}])
def test_what_fit_does_not_know_is_refused(how):
    [name] = how
    with pytest.raises(ValueError, match=f"`{name}` must be .*; got "):
        fit(tf.zeros((9, 9, 3)), (8, 8), **how)
    with pytest.raises(ValueError, match=f"`{name}` must be .*; got "):
        load("digits", "val", image_size=(8, 8), **how)
