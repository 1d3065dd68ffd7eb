"""Proposals in batches: found once, kept, and moved with the pixels of their images."""

import numpy as np
import pytest
import tensorflow as tf

from kvision.data import load, proposals
from kvision.data.sources import open_source
from kvision.data.sources.shapes import draw
from kvision.data.transforms import AUGMENTATIONS, OTHERS, Frame
from kvision.detection import selective_search

HOW = {"image_size": (64, 80), "target": "boxes", "batch_size": 2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kvision/proposals"


@pytest.fixture
def searched(monkeypatch):
    """The images that were searched, in place of a search that finds four boxes."""
    images = []

    def search(image, **settings):
        images.append(image)
        left, top = np.argwhere(image[..., 0] == image[..., 0].max())[0][::-1] / 2
        return np.array([[left + i, top, left + i + 20, top + 30] for i in range(4)], np.float32)

    monkeypatch.setattr(proposals, "selective_search", search)
    return images


def test_they_are_those_of_selective_search(cache):
    image = draw(0, 3).image
    expected = selective_search(image, width=None, smallest=4)
    assert len(expected) > 20
    for _ in range(2):
        np.testing.assert_array_equal(proposals.find_proposals(image), expected)
    resized = proposals.letterboxed_proposals(image, (192, 240), 10)
    np.testing.assert_allclose(resized, 2 * expected[:10], rtol=1e-6)


def test_images_are_searched_once(cache, searched, capfd):
    source = open_source("shapes", "val", target="boxes")

    def batches():
        data = load(source, "val", proposals=6, **HOW)
        return list(data.dataset.take(3).as_numpy_iterator())

    first = batches()
    assert len(searched) >= 6
    assert "kept in the cache folder" in capfd.readouterr().err
    for batch in first:
        assert batch["proposals"].shape == (2, 6, 4)
        assert (batch["proposals"][:, :4, 2:] > batch["proposals"][:, :4, :2]).all()
        assert not batch["proposals"][:, 4:].any()
    before = [image.tobytes() for image in searched]
    for path in sorted(path for path in cache.rglob("*") if path.is_file())[:2]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    for batch, other in zip(first, batches(), strict=True):
        np.testing.assert_array_equal(batch["proposals"], other["proposals"])
    again = [image.tobytes() for image in searched[len(before) :]]  # and some that are read ahead
    assert sum(image in before for image in again) <= 2


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_they_move_as_boxes_do(augment):
    """Which are those of the pixels, as another test shows."""
    move = tf.function(AUGMENTATIONS[augment], autograph=False, reduce_retracing=True)
    frame = Frame(size=(64, 80), min_crop_area=0.2)

    def example(number):
        picture = draw(7, number)
        boxes = [[shape.left, shape.top, shape.right, shape.bottom] for shape in picture.shapes]
        boxes = tf.constant(boxes, tf.float32)
        classes = tf.range(len(boxes))
        objects = {"boxes": boxes, "classes": classes, "crowd": tf.zeros_like(classes)}
        return {"image": tf.constant(picture.image), "proposals": boxes} | objects

    first, *others = map(example, range(1 + OTHERS.get(augment, 0)))
    for seed in range(4):
        seeds = (tf.constant(seed, tf.int64), tf.constant(3, tf.int64))
        moved = move(first | ({"others": others} if others else {}), seeds, frame)
        np.testing.assert_array_equal(moved["proposals"], moved["boxes"])


@pytest.mark.slow
def test_batches_are_exact_under_resume_and_shards(cache, searched):
    how = HOW | {"training": True, "augment": "mosaic", "seed": 3, "proposals": 8}

    def take(count, **keywords):
        data = load("shapes", "train", **(how | keywords))
        return [batch["proposals"] for batch in data.dataset.take(count).as_numpy_iterator()]

    whole = take(4)
    assert (whole[0][..., 2] > 0).any()
    half = take(4, shard=(0, 2), batch_size=1)
    np.testing.assert_array_equal(np.concatenate(half), np.stack(whole)[:, 0])
    resumed = take(2, shard=(1, 2), batch_size=1, start=4)
    np.testing.assert_array_equal(np.concatenate(resumed), np.stack(whole)[2:, 1])
