"""Datasets: their splits, order and unreadable files."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data import load, read_image


def pairs(data):
    return [(image.mean().round(), label) for images, labels in data.dataset.as_numpy_iterator()
            for image, label in zip(images, labels, strict=True)]  # fmt: skip


def test_digits_are_whole_and_split_once():
    train = load("digits", "train", image_size=(8, 8), channels=1, batch_size=100)
    val = load("digits", "val", image_size=(8, 8), channels=1, batch_size=100)
    assert (train.size, val.size) == (1437, 360)
    images, labels = zip(*val.dataset.as_numpy_iterator(), strict=True)
    images, labels = np.concatenate(images), np.concatenate(labels)
    assert images.shape == (360, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)
    # the first of the UCI file's images is a 0, its first row 0 0 5 13 9 1 0 0
    np.testing.assert_allclose(images[0, 0, :, 0], np.array([0, 0, 5, 13, 9, 1, 0, 0]) * 255 / 16)
    assert labels[0] == 0
    assert val.class_names == tuple("0123456789")


def test_folder_splits_every_class_and_reports_what_is_no_image(folder):
    how = {"image_size": (8, 8), "val_fraction": 0.3, "max_unreadable": 1}
    splits = {split: load(f"folder:{folder}", split, **how) for split in ("train", "val")}
    seen = {split: pairs(data) for split, data in splits.items()}
    everything = sorted(seen["train"] + seen["val"])
    assert everything == sorted((100 * label + i, label) for label in (0, 1) for i in range(10))
    assert {label for _, label in seen["val"]} == {0, 1}
    unreadable = splits["train"].unreadable | splits["val"].unreadable
    assert sorted(unreadable) == [str(folder / "cat/notes.txt"), str(folder / "dog/cut.jpg")]
    assert splits["train"].class_names == ("cat", "dog")


def test_folder_with_splits_of_its_own(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.zeros((9, 9, 3), "uint8")).save(tmp_path / split / name / f"{i}.png")
    assert load(f"folder:{tmp_path}", "train", image_size=(8, 8)).size == 6
    assert load(f"folder:{tmp_path}", "val", image_size=(8, 8)).size == 4
    (tmp_path / "val" / "c").mkdir()
    with pytest.raises(ValueError, match="classes that 'train' lacks: c"):
        load(f"folder:{tmp_path}", "val", image_size=(8, 8))


def training(start=0, seed=0, **keywords):
    keywords = {"image_size": (8, 8), "batch_size": 16, "training": True} | keywords
    return load("digits", "train", seed=seed, start=start, **keywords).dataset.as_numpy_iterator()


def test_training_order_follows_from_the_seed():
    first, again, other = (next(training(seed=seed, augment="crop_flip")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[1], other[1])


def test_an_epoch_has_every_image_once_and_epochs_differ():
    batches = training(batch_size=479, channels=1)
    epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
    digests = [sorted(image.tobytes() for images, _ in epoch for image in images) for epoch in epochs]
    once = load("digits", "train", image_size=(8, 8), channels=1).dataset.as_numpy_iterator()
    val = [image.tobytes() for images, _ in once for image in images]
    assert digests[0] == digests[1] == sorted(val)
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])


def test_skipping_gives_what_would_have_come():
    batches = training(augment="crop")
    for _ in range(100):  # into the second epoch
        expected = next(batches)
    skipped = next(training(start=99 * 16, augment="crop"))
    np.testing.assert_array_equal(skipped[0], expected[0])


@pytest.mark.parametrize("shard", [(0, 1), (1, 3)])
@pytest.mark.parametrize("size", [1, 4])
def test_unreadable_files_leave_every_batch_where_it_was(folder, size, shard):
    """Whole batches are missing where there is one image in each."""
    (folder / "dog" / "1.png").write_bytes(b"damaged")
    (folder / "dog" / "2.jpg").write_bytes(b"damaged")
    how = {"image_size": (8, 8), "training": True, "batch_size": size, "shard": shard, "augment": "crop"}
    how["max_unreadable"] = 1
    data = load(f"folder:{folder}", "train", **how)
    batches = [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(40), strict=False)]
    for step in (1, 7, 13, 22, 39):
        again = load(f"folder:{folder}", "train", start=step * size * shard[1], **how)
        for part, expected in zip(next(again.dataset.as_numpy_iterator()), batches[step], strict=True):
            np.testing.assert_array_equal(part, expected)
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
        return [labels.tolist() for (_, labels), _ in zip(batches, range(5), strict=False)]

    one, two = labels(32), [labels(16, (index, 2)) for index in range(2)]
    for whole, first, second in zip(one, *two, strict=True):
        assert whole[::2] == first
        assert whole[1::2] == second


def test_a_folder_without_any_image_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(5):
        (tmp_path / "a" / f"{i}.jpg").write_text("no image")
    with pytest.raises(ValueError, match="None of the 4 files is an image"):
        load(f"folder:{tmp_path}", "train", image_size=(8, 8), training=True)


def test_grey_and_colour(folder):
    path = folder / "dog" / "1.png"
    assert read_image(path, (8, 8), channels=1).shape == (8, 8, 1)
    assert read_image(path, (8, 8)).mean() == 101
    with pytest.raises(ValueError, match="notes.txt' failed to decode: its format is none of JPEG"):
        read_image(folder / "cat" / "notes.txt", (8, 8))


def test_tfds(tmp_path):
    import tensorflow_datasets as tfds

    tfds.testing.DummyMnist(data_dir=tmp_path).download_and_prepare()  # 20 images a split
    tfds.core.add_data_dir(tmp_path)
    data = load("tfds:dummy_mnist", "val", image_size=(32, 32), batch_size=8)
    batches = list(data.dataset.as_numpy_iterator())
    assert data.size == 20
    assert [images.shape for images, _ in batches] == [(8, 32, 32, 3), (8, 32, 32, 3), (4, 32, 32, 3)]
    assert data.class_names == tuple("0123456789")
    train = load("tfds:dummy_mnist", "train", image_size=(32, 32), channels=1, training=True, batch_size=8)
    batches = train.dataset.as_numpy_iterator()
    assert {next(batches)[0].shape for _ in range(5)} == {(8, 32, 32, 1)}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("digit", ValueError, "Did you mean 'digits'"),
        ("digits:x", ValueError, "folder:PATH"),
        ("folder:/nowhere", FileNotFoundError, "no folder '/nowhere'"),
        ("tfds:mnits", ValueError, "Did you mean 'mnist'"),
    ],
)
def test_unknown_datasets(data, error, message):
    with pytest.raises(error, match=message):
        load(data, "train", image_size=(8, 8))


def test_folder_without_classes(tmp_path):
    with pytest.raises(ValueError, match="one for each class"):
        load(f"folder:{tmp_path}", "train", image_size=(8, 8))
    with pytest.raises(ValueError, match="between 0 and 1"):
        load("digits", "train", image_size=(8, 8), val_fraction=1.0)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        load("digits", "train", image_size=(8, 8), channels=2)


def write_csv(folder, text):
    (folder / "list.csv").write_text(text)
    return f"csv:{folder / 'list.csv'}"


def test_csv(folder):
    rows = [f"{path.relative_to(folder)},{path.parent.name}s" for path in sorted(folder.rglob("*.png"))]
    data = write_csv(folder, "\n".join(["path,label", *rows]))
    splits = {s: load(data, s, image_size=(8, 8), val_fraction=0.4) for s in ("train", "val")}
    seen = sorted(pairs(splits["train"]) + pairs(splits["val"]))
    assert seen == sorted((100 * label + i, label) for label in (0, 1) for i in range(1, 10, 2))
    assert (splits["train"].size, splits["val"].size) == (6, 4)
    assert splits["train"].class_names == ("cats", "dogs")
    rows = [f"{row},{'val' if i < 3 else 'train'}" for i, row in enumerate(rows)]
    data = write_csv(folder, "\n".join(["path,label,split", *rows]))
    assert load(data, "val", image_size=(8, 8)).size == 3
    assert load(data, "val", image_size=(8, 8)).class_names == ("cats", "dogs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,a", "columns 'path' and 'label'; its first line is ['file', 'label']"),
        ("path,label\n../a.png,a", "row 2: a path below the file's folder and a label .*'../a.png'"),
        ("path,label\ncat/1.png,a\n/etc/a.png,a", "row 3: a path below"),
        ("path,label\na.png,", "row 2: .*a label were expected"),
        ("path,label,split\na.png,a,test", "row 2: `split` must be train or val; got 'test'"),
        ("path,label", "no files for the split 'train'"),
    ],
)
def test_lists_that_are_wrong(folder, text, words):
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        load(write_csv(folder, text), "train", image_size=(8, 8))


def write_records(path, images, texts=True):
    """As the scripts that made ImageNet's TFRecords: labels begin at 1."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for encoded, label in images:
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label + 1])),
            }
            if texts:
                text = ("cat", "dog")[label].encode()
                feature["image/class/text"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


@pytest.fixture
def records(folder, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    files = [path for path in sorted(folder.rglob("*.*")) if path.name != "notes.txt"]
    images = [(path.read_bytes(), int(path.parent.name == "dog")) for path in files]
    root = tmp_path_factory.mktemp("records")
    write_records(root / "train-00000-of-00002", images[::3])
    write_records(root / "train-00001-of-00002", images[1::3])
    write_records(root / "validation-00000-of-00001", images[2::3])
    return root


def test_tfrecord(records, folder):
    how = {"image_size": (8, 8), "max_unreadable": 1}
    splits = {split: load(f"tfrecord:{records}/*", split, **how) for split in ("train", "val")}
    assert [splits[s].size for s in splits] == [14, 7]
    assert splits["val"].class_names == ("cat", "dog")
    seen = sorted(pairs(splits["train"]) + pairs(splits["val"]))
    assert seen == sorted((100 * label + i, label) for label in (0, 1) for i in range(10))
    [name] = splits["train"].unreadable | splits["val"].unreadable
    assert name.startswith(str(records))
    again = load(f"tfrecord:{records}/train*", "train", image_size=(8, 8), val_fraction=0.5)  # from the index
    assert again.class_names == ("cat", "dog")
    whole = (records / "train-00000-of-00002").read_bytes()
    (records / "train-00000-of-00002").write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="is no whole, uncompressed TFRecord file"):
        load(f"tfrecord:{records}/*", "train", image_size=(8, 8))
    with pytest.raises(FileNotFoundError, match="No file matches"):
        load(f"tfrecord:{records}/none*", "train", image_size=(8, 8))
    with tf.io.TFRecordWriter(str(records / "train-00000-of-00002")) as writer:
        writer.write(b"")
    with pytest.raises(ValueError, match="no int64 label"):
        load(f"tfrecord:{records}/*", "train", image_size=(8, 8))


def test_records_without_texts_and_splits(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = [(path.read_bytes(), int(path.parent.name == "dog")) for path in sorted(folder.rglob("*.png"))]
    write_records(tmp_path / "animals", images, texts=False)
    data = load(f"tfrecord:{tmp_path}/animals", "val", image_size=(8, 8), val_fraction=0.2)
    assert (data.size, data.class_names) == (2, ("1", "2"))
