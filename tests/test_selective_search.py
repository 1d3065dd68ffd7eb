"""Selective search on drawn shapes, its parts beside scikit-image."""

import sys
from functools import cache

import numpy as np
import pytest
from skimage import color, segmentation

from kvision import _selective_search
from kvision.average_precision import iou
from kvision.data.sources.shapes import draw
from kvision.detection import selective_search
from kvision.errors import UserError

IMAGES = 12


def recalls(proposals):
    """Shares of the shapes in the first pictures that a box overlaps by 0.5 and by 0.7."""
    best = []
    for index, boxes in enumerate(proposals):
        shapes = [(shape.left, shape.top, shape.right, shape.bottom) for shape in draw(7, index).shapes]
        best += iou(np.array(shapes, float), boxes).max(1).tolist()
    return np.mean(np.array(best) >= 0.5), np.mean(np.array(best) >= 0.7)


@cache
def found_in(images, **settings):
    """The boxes in each of the first pictures."""
    return [selective_search(draw(7, index).image, **settings) for index in range(images)]


@pytest.mark.parametrize("backend", ["numpy", "opencv"])
@pytest.mark.parametrize(("width", "smallest", "images"), [(None, 8, IMAGES), (150, 12, 4)])
def test_shapes_are_found_and_random_boxes_find_few(backend, width, smallest, images):
    if backend == "opencv":
        pytest.importorskip("cv2.ximgproc", reason="OpenCV is missing: opencv-contrib-python-headless")
    settings = {"width": width, "smallest": smallest, "backend": backend}
    found = found_in(images, **settings)
    random = np.random.default_rng(0)
    guessed = [np.sort(random.uniform(0, 96, (len(boxes), 2, 2)), 1).reshape(-1, 4) for boxes in found]
    boxes = np.concatenate(found)
    assert boxes.dtype == np.float32
    assert boxes.min() >= 0
    assert boxes.max() <= 96
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= smallest * 96 / (width or 96) - 1e-3
    assert max(len(boxes) for boxes in found) < 2500
    assert min(recalls(found)) > 0.95
    assert recalls(guessed)[1] < 0.4
    np.testing.assert_array_equal(selective_search(draw(7, 0).image, **settings), found[0])


def test_a_seed_orders_the_boxes_and_the_first_are_the_best():
    settings = {"width": None, "smallest": 8, "backend": "numpy"}
    found = found_in(IMAGES, **settings)
    one, other = found[0], selective_search(draw(7, 0).image, seed=1, **settings)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(np.unique(one, axis=0), np.unique(other, axis=0))
    first, last = (
        recalls([boxes[part(len(boxes))] for boxes in found])[0]
        for part in (lambda count: np.s_[: count // 4], lambda count: np.s_[-(count // 4) :])
    )
    assert first > last + 0.2


def test_segments_are_those_of_scikit_image():
    image = draw(7, 1, size=120).image
    image = np.pad(image, ((8, 8), (8, 8), (0, 0)), "edge")  # scikit-image mirrors borders for its blur
    edges = _selective_search._edges(image.astype(np.float64))
    for scale in _selective_search.SCALES:
        segments = _selective_search._segments(*edges, image[..., 0].size, scale)
        expected = segmentation.felzenszwalb(image, scale, 0.8, min_size=scale, channel_axis=-1).ravel()
        pairs = np.unique(np.stack([segments, expected]), axis=1)
        assert pairs.shape[1] == segments.max() + 1 == expected.max() + 1 > 5


def test_lab_is_that_of_scikit_image():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    expected = color.rgb2lab(pixels) * [2.55, 1, 1] + [0, 128, 128]
    np.testing.assert_allclose(_selective_search._lab(pixels), expected, atol=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_without_contrast_is_one_box(channels):
    boxes = selective_search(np.full((30, 60, channels), 90.0), width=100, backend="numpy")
    np.testing.assert_array_equal(boxes, [[0, 0, 60, 30]])


def test_missing_and_unknown_backends(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    image = draw(7, 0).image
    with pytest.raises(ImportError, match="pip install opencv-contrib-python-headless"):
        selective_search(image, backend="opencv")
    auto, numpy = (
        selective_search(image, width=None, smallest=8, backend=name) for name in ("auto", "numpy")
    )
    np.testing.assert_array_equal(auto, numpy)
    with pytest.raises(UserError, match="`backend` must be 'auto', 'numpy' or 'opencv'; got 'torch'"):
        selective_search(image, backend="torch")
