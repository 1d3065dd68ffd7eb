"""TFRecords and TensorFlow Datasets: splits, keys, the index that is kept, and files of other kinds."""

import gzip
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import pairs

from kvision.data import load
from kvision.data.sources import open_source
from kvision.names import say_once


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    values = value if isinstance(value, list) else [value]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def write_examples(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            features = tf.train.Features(feature={key: feature(value) for key, value in example.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())


def write_records(path, images, texts=(b"cat", b"dog")):
    """As the scripts that made ImageNet's TFRecords: labels begin at 1."""
    write_examples(
        path,
        (
            {"image/encoded": encoded, "image/class/label": label + 1}
            | ({"image/class/text": texts[label]} if texts else {})
            for encoded, label in images
        ),
    )


@pytest.fixture
def images(folder):
    files = [path for path in sorted(folder.rglob("*.*")) if path.name != "notes.txt"]
    return [(path.read_bytes(), int(path.parent.name == "dog")) for path in files]


@pytest.fixture
def records(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    write_records(root / "train-00000-of-00002", images[::3])
    write_records(root / "train-00001-of-00002", images[1::3])
    write_records(root / "validation-00000-of-00001", images[2::3])
    return root


def test_splits(records):
    how = {"image_size": (8, 8), "max_unreadable": 1}
    splits = {split: load(f"tfrecord:{records}/*", split, **how) for split in ("train", "val")}
    assert [splits[s].size for s in splits] == [14, 7]
    assert repr(splits["val"].class_names) == "('cat', 'dog')"
    seen = sorted(pairs(splits["train"]) + pairs(splits["val"]))
    assert seen == sorted((100 * label + i, label) for label in (0, 1) for i in range(10))
    (name,) = [*splits["train"].unreadable, *splits["val"].unreadable]
    assert name.startswith(str(records))
    again = load(f"tfrecord:{records}/train*", "train", image_size=(8, 8), val_fraction=0.5)  # from the index
    assert (again.class_names, again.size) == (("cat", "dog"), 14)


def test_files_of_one_held_out_split_are_all_of_it(records, images, capsys):
    for split in ("val", "all"):
        assert open_source(f"tfrecord:{records}/validation*", split).size == 7
    with pytest.raises(ValueError, match="no split 'train'. Valid splits: 'val', 'all'"):
        open_source(f"tfrecord:{records}/validation*", "train")
    assert open_source(f"tfrecord:{records}/*", "all").size == 21
    assert open_source(f"tfrecord:{records}/train*", "all").size == 14
    with pytest.raises(ValueError, match="no split 'val'. Valid splits: 'train', 'all'"):
        open_source(f"tfrecord:{records}/train*", "val")
    write_records(records / "animals-test.tfrecord-00000-of-00001", images)
    write_records(records / "extra", images)
    assert open_source(f"tfrecord:{records}/*", "test").size == 21
    assert open_source(f"tfrecord:{records}/*", "val").size == 7
    assert open_source(f"tfrecord:{records}/*test*", "val").size == 21
    assert "1 file of no split" in capsys.readouterr().err


def test_no_texts_and_no_splits(images, tmp_path):
    write_records(tmp_path / "animals", images, texts=None)
    data = load(f"tfrecord:{tmp_path}/animals", "val", image_size=(8, 8), val_fraction=0.2)
    assert (data.size, data.class_names) == (4, ("1", "2"))
    assert open_source(f"tfrecord:{tmp_path}/animals", "all").size == 21
    with pytest.raises(ValueError, match="no split 'test' of its own"):
        open_source(f"tfrecord:{tmp_path}/animals", "test")


def test_files_of_no_split_are_trained_on_beside_others(images, tmp_path):
    write_records(tmp_path / "animals-0", images[::2])
    write_records(tmp_path / "animals-test", images[1::2])
    sizes = {"train": len(images[::2]), "val": len(images[1::2]), "test": len(images[1::2])}
    for split, size in sizes.items():
        assert open_source(f"tfrecord:{tmp_path}/animals*", split).size == size


def test_files_that_are_no_records(records, images):
    pattern = f"tfrecord:{records}/*"
    first = records / "train-00000-of-00002"
    whole = first.read_bytes()
    flipped = bytearray(whole)
    flipped[100] ^= 1
    cases = {
        "is damaged or was cut off: it has no whole record at byte": whole[:-7],
        "not a whole, uncompressed TFRecord file: it does not begin with a record": b"{}",
        "uncompressed TFRecord file: it is compressed with gzip": gzip.compress(whole),
        "damaged": bytes(flipped),
    }
    for words, content in cases.items():
        first.write_bytes(content)
        with pytest.raises(ValueError, match=f"train-00000-of-00002'.* {words}"):
            open_source(pattern, "train")
    first.write_bytes(whole)
    (records / "train-00002-of-00002").write_bytes(b"")  # a shard without records
    assert open_source(pattern, "train").size == 14
    (records / "features.json").write_text('{"features": "those of the records"}')
    with pytest.raises(ValueError, match="features.json' is not a whole, uncompressed TFRecord file"):
        open_source(pattern, "train")
    os.remove(records / "features.json")
    (records / "more").mkdir()
    with pytest.raises(ValueError, match="more' is not a file: the pattern must match TFRecord files alone"):
        open_source(pattern, "train")
    with pytest.raises(FileNotFoundError, match="No file matches"):
        open_source(f"tfrecord:{records}/none*", "train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image/class/label": None}, "no key 'image/class/label'; its keys are 'image/class/text', 'im"),
        ({"image/encoded": None}, "no key 'image/encoded'; its keys are 'image/class/label', 'image/cl"),
        ({"image/class/label": b"1"}, "0 int64 values in 'image/class/label'; one was expected"),
        ({"image/class/text": [b"a", b"b"]}, "2 bytes values in 'image/class/text'"),
        ({"image/class/text": b"dog"}, "label 1 have two names: '(cat|dog)', '(cat|dog)'"),
        ({"image/class/text": b"\xff"}, "label 1 is not UTF-8"),
    ],
)  # fmt: skip
def test_records_that_lack_something(images, tmp_path, change, words):
    example = {"image/encoded": images[0][0], "image/class/label": 1, "image/class/text": b"cat"}
    changed = {key: value for key, value in (example | change).items() if value is not None}
    write_examples(tmp_path / "animals", [example, changed])
    with pytest.raises(ValueError, match=words):
        open_source(f"tfrecord:{tmp_path}/animals", "all")


def test_records_that_are_no_examples(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "animals")) as writer:
        writer.write(b"no example")
    with pytest.raises(ValueError, match="animals', the record at byte 12 is not a tf.train.Example"):
        open_source(f"tfrecord:{tmp_path}/animals", "all")


def test_names_of_classes(images, tmp_path):
    write_records(tmp_path / "same", images, texts=[b"crane", b"crane"])  # as ImageNet has
    assert open_source(f"tfrecord:{tmp_path}/same", "all").class_names == ("1", "2")
    write_records(tmp_path / "control", images, texts=[b"cat\nbird", b"dog"])
    with pytest.raises(ValueError, match="has a control character"):
        open_source(f"tfrecord:{tmp_path}/control", "all")
    write_records(tmp_path / "long", images, texts=[b"cat" * 1000, b"dog"])
    with pytest.raises(ValueError, match="has 3000 characters"):
        open_source(f"tfrecord:{tmp_path}/long", "all")
    write_records(tmp_path / "partly", images[:1], texts=None)
    write_records(tmp_path / "rest", images)
    for name in ("partly", "rest"):
        os.rename(tmp_path / name, tmp_path / f"animals-{name}")
    assert open_source(f"tfrecord:{tmp_path}/animals-*", "all").class_names == ("cat", "dog")


def damage(kept, kind):
    with np.load(kept) as file:
        arrays = dict(file)
    if kind == "truncated":
        kept.write_bytes(kept.read_bytes()[:-100])
    elif kind == "flipped":
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
    elif kind == "no zip":
        kept.write_bytes(b"no zip")
    elif kind == "empty":
        kept.write_bytes(b"")
    elif kind == "other arrays":
        np.savez(kept, other=np.zeros(3))
    elif kind == "no archive":
        with open(kept, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "shorter":
        np.savez(kept, **arrays | {"labels": arrays["labels"][1:]})
    elif kind == "beyond the files":
        np.savez(kept, **arrays | {"offsets": arrays["offsets"] + 10**9})
    elif kind == "no such file":
        np.savez(kept, **arrays | {"files": arrays["files"] + 7})
    elif kind == "floats":
        np.savez(kept, **arrays | {"lengths": arrays["lengths"].astype("float64")})
    elif kind == "fewer classes":
        np.savez(kept, **arrays | {"values": arrays["values"][1:], "texts": arrays["texts"][1:]})


KINDS = (
    "truncated", "flipped", "no zip", "empty", "other arrays", "no archive", "shorter", "beyond the files",
    "no such file", "floats", "fewer classes",
)  # fmt: skip


def test_a_damaged_index_is_made_anew(records, cache_folder, capsys):
    expected = open_source(f"tfrecord:{records}/*", "train")
    [kept] = cache_folder.glob("index-*.npz")
    whole = kept.read_bytes()
    for kind in KINDS:
        say_once.cache_clear()
        damage(kept, kind)
        assert kept.read_bytes() != whole, kind
        again = open_source(f"tfrecord:{records}/*", "train")
        assert again.identity == expected.identity
        assert "is damaged and is made anew" in capsys.readouterr().err, kind
        assert [path.name for path in cache_folder.iterdir()] == [kept.name]
        open_source(f"tfrecord:{records}/*", "train")
        assert not capsys.readouterr().err
    shutil.rmtree(cache_folder)
    cache_folder.write_text("no folder")
    assert open_source(f"tfrecord:{records}/*", "train").identity == expected.identity
    assert "The index of TFRecord files is not kept in" in capsys.readouterr().err


def test_tfds(tmp_path):
    import tensorflow_datasets as tfds

    tfds.testing.DummyMnist(data_dir=tmp_path).download_and_prepare()  # 20 images a split
    tfds.core.add_data_dir(tmp_path)
    data = load("tfds:dummy_mnist", "val", image_size=(32, 32), batch_size=8)
    batches = list(data.dataset.as_numpy_iterator())
    assert data.size == 20
    assert [batch["image"].shape for batch in batches] == [(8, 32, 32, 3), (8, 32, 32, 3), (4, 32, 32, 3)]
    assert data.class_names == tuple("0123456789")
    train = load("tfds:dummy_mnist", "train", image_size=(32, 32), channels=1, training=True, batch_size=8)
    batches = train.dataset.as_numpy_iterator()
    assert {next(batches)["image"].shape for _ in range(5)} == {(8, 32, 32, 1)}
    splits = {split: open_source("tfds:dummy_mnist", split) for split in ("train", "test", "val", "all")}
    assert [source.size for source in splits.values()] == [20, 20, 20, 40]
    assert splits["val"].identity == splits["test"].identity != splits["train"].identity


def test_corrected_labels_of_equal_size_and_time_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoded = tf.io.encode_png(np.zeros((9, 9, 3), "uint8")).numpy()
    path = tmp_path / "images"
    for labels in ([0, 1, 0], [1, 0, 1]):
        write_records(tmp_path / "new", [(encoded, label) for label in labels])
        os.utime(tmp_path / "new", (0, 0))
        os.replace(tmp_path / "new", path)
        assert open_source(f"tfrecord:{path}", "all").labels.tolist() == labels


def test_folders_of_records_are_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoded = tf.io.encode_png(np.zeros((9, 9, 3), "uint8")).numpy()
    for folder, count in (("train", 4), ("valid", 2)):
        (tmp_path / folder).mkdir()
        write_records(tmp_path / folder / "images.tfrecord", [(encoded, i % 2) for i in range(count)])
    sizes = [open_source(f"tfrecord:{tmp_path}/*/*.tfrecord", split).size for split in ("train", "val")]
    assert sizes == [4, 2]
