"""Datasets: their splits, order and unreadable files."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import mostly_slow

from kvision.data import load, read_image, sources
from kvision.data.sources import Source, open_source


def test_digits_are_whole_and_split_once():
    train = load("digits", "train", image_size=(8, 8), channels=1, batch_size=100)
    val = load("digits", "val", image_size=(8, 8), channels=1, batch_size=100)
    assert (train.size, val.size) == (1437, 360)
    batches = list(val.dataset.as_numpy_iterator())
    images, labels = (np.concatenate([batch[name] for batch in batches]) for name in ("image", "label"))
    assert images.shape == (360, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)
    # the first of the UCI file's images is a 0, its first row 0 0 5 13 9 1 0 0
    np.testing.assert_allclose(images[0, 0, :, 0], np.array([0, 0, 5, 13, 9, 1, 0, 0]) * 255 / 16)
    assert labels[0] == 0
    assert val.class_names == tuple("0123456789")
    assert open_source("digits", "all").size == 1797
    with pytest.raises(ValueError, match="no split 'test' of its own. Valid splits: 'train', 'val', 'all'"):
        open_source("digits", "test")


def training(start=0, seed=0, **keywords):
    keywords = {"image_size": (8, 8), "batch_size": 16, "training": True} | keywords
    return load("digits", "train", seed=seed, start=start, **keywords).dataset.as_numpy_iterator()


def test_training_order_follows_from_the_seed():
    first, again, other = (next(training(seed=seed, augment="crop_flip")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert not np.array_equal(first["label"], other["label"])


def test_an_epoch_has_every_image_once_and_epochs_differ():
    batches = training(batch_size=479, channels=1)
    epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
    digests = [sorted(image.tobytes() for batch in epoch for image in batch["image"]) for epoch in epochs]
    once = load("digits", "train", image_size=(8, 8), channels=1).dataset.as_numpy_iterator()
    val = [image.tobytes() for batch in once for image in batch["image"]]
    assert digests[0] == digests[1] == sorted(val)
    assert not np.array_equal(epochs[0][0]["image"], epochs[1][0]["image"])


def test_skipping_gives_what_would_have_come():
    batches = training(augment="crop")
    for _ in range(100):  # into the second epoch
        expected = next(batches)
    skipped = next(training(start=99 * 16, augment="crop"))
    np.testing.assert_array_equal(skipped["image"], expected["image"])


@pytest.mark.parametrize("shard", mostly_slow([(0, 1), (1, 3)], (1, 3)))
@pytest.mark.parametrize("size", mostly_slow([1, 4], 1))
def test_unreadable_files_leave_every_batch_where_it_was(folder, size, shard):
    """Whole batches are missing where there is one image in each."""
    (folder / "dog" / "1.png").write_bytes(b"damaged")
    (folder / "dog" / "2.jpg").write_bytes(b"damaged")
    how = {"image_size": (8, 8), "training": True, "batch_size": size, "shard": shard, "augment": "crop"}
    how["max_unreadable"] = 1
    data = load(f"folder:{folder}", "train", **how)
    batches = [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(40), strict=False)]
    for step in (1, 22, 39):
        again = load(f"folder:{folder}", "train", start=step * size * shard[1], **how)
        batch = next(again.dataset.as_numpy_iterator())
        assert batch.keys() == batches[step].keys() == {"image", "weight", "label"}
        for name, part in batch.items():
            np.testing.assert_array_equal(part, batches[step][name])
    names = {
        path.name for path in folder.rglob("*.*") if path.name in ("notes.txt", "cut.jpg", "1.png", "2.jpg")
    }
    assert data.unreadable
    assert {Path(name).name for name in data.unreadable} <= names


@pytest.mark.parametrize("training", [True, False])
def test_shards_are_a_batch_together(training):
    def labels(batch_size, shard=(0, 1)):
        how = {"image_size": (8, 8), "training": training, "shard": shard, "start": 96}
        batches = load("digits", "train", batch_size=batch_size, **how).dataset.as_numpy_iterator()
        return [batch["label"].tolist() for batch, _ in zip(batches, range(5), strict=False)]

    one, two = labels(32), [labels(16, (index, 2)) for index in range(2)]
    for whole, first, second in zip(one, *two, strict=True):
        assert whole[::2] == first
        assert whole[1::2] == second


def test_grey_and_colour(folder):
    path = folder / "dog" / "1.png"
    assert read_image(path, (8, 8), channels=1).shape == (8, 8, 1)
    assert read_image(path, (8, 8)).mean() == 101
    with pytest.raises(ValueError, match="notes.txt' failed to decode: its format is none of JPEG"):
        read_image(folder / "cat" / "notes.txt", (8, 8))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("digit", ValueError, "Did you mean 'digits'"),
        ("folder:", ValueError, "The path is missing in 'folder:': folder:PATH was expected.$"),
        ("tfds", ValueError, "The name is missing in 'tfds': tfds:NAME was expected.$"),
        ("digits:all", ValueError, "'digits' takes no path; got 'digits:all'"),
        ("digits:x", ValueError, "folder:PATH"),
        ("folder:", ValueError, "folder:PATH"),
        ("folder:/nowhere", FileNotFoundError, "no folder '/nowhere'"),
        ("folder:a\0b", ValueError, "without null characters"),
        ("csv:/nowhere.csv", FileNotFoundError, "nowhere.csv"),
        ("tfds:mnits", ValueError, "Did you mean 'mnist'"),
        ("tfds:a b", ValueError, "cannot open 'a b': Parsing builder name"),
        ("tfds:mnist/none", ValueError, "cannot open 'mnist/none': .*BuilderConfig none not found"),
        ("tfds:mnist:9.9.9", ValueError, "cannot be loaded at version 9.9.9, only: 3.0.1"),
        ("tfds:coco", ValueError, "'tfds:coco' is not a dataset of image classification .*'image/filename'"),
    ],
)
def test_unknown_datasets(data, error, message):
    with pytest.raises(error, match=message):
        load(data, "train", image_size=(8, 8))


def test_images_without_a_class_are_refused(monkeypatch):
    """As the test images of ImageNet have it."""

    def tfds(*_):
        return Source(("cat", "dog"), np.array([0, 1, -1, -1]), tf.constant)

    monkeypatch.setitem(sources.KINDS, "tfds", tfds)
    with pytest.raises(ValueError, match="2 images without the label of a class, the first -1 instead of"):
        sources.open_source("tfds:imagenet2012", "test")


def test_options_that_are_wrong():
    with pytest.raises(ValueError, match="between 0 and 1"):
        load("digits", "train", image_size=(8, 8), val_fraction=1.0)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        load("digits", "train", image_size=(8, 8), channels=2)
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'val', 'test', 'all'; got 'dev'"):
        load("digits", "dev", image_size=(8, 8))
