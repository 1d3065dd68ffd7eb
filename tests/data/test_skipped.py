"""Files that fail to decode are skipped; whatever else goes wrong ends the reading in a sentence."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, dark_and_light, mostly_slow, start
from PIL import Image

from kvision.data import load, read_errors
from kvision.data.skipped import Unreadable, report_unreadable
from kvision.data.sources import Source

HOW = {"image_size": (8, 8), "batch_size": 4, "training": True}


@pytest.fixture
def images(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (9, 9), (100 * label + i,) * 3).save(tmp_path / name / f"{i:02}.png")
    return tmp_path


def read(data, batches=30):
    with read_errors([data]):
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(batches), strict=False)]


@pytest.mark.parametrize(
    ("augment", "gone"),
    [
        ("none", "."),
        ("crop", "cat"),
        pytest.param("none", "cat", marks=pytest.mark.slow),
        pytest.param("crop", ".", marks=pytest.mark.slow),
    ],
)
def test_files_that_go_away_end_the_reading(images, augment, gone):
    data = load(f"folder:{images}", "train", augment=augment, **HOW)
    batches = data.dataset.as_numpy_iterator()
    next(batches)
    shutil.rmtree(images / gone)
    with pytest.raises(FileNotFoundError, match=r"^'.*\.png' is not there any more\.$"), read_errors([data]):
        all(batches)
    assert not data.unreadable


def test_what_is_no_file_ends_the_reading(images):
    data = load(f"folder:{images}", "train", **HOW)
    [path] = (images / "dog").glob("07.png")
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"07\.png' (cannot be read|is not there)"):
        read(data)


def test_our_own_faults_are_no_unreadable_files(images):
    def image(index):
        return {0: whole}[int(index)]

    whole = tf.io.encode_png(tf.zeros((9, 9, 3), tf.uint8)).numpy()
    source = Source(("a",), np.zeros(9, np.int64), lambda index: tf.numpy_function(image, [index], tf.string))
    data = load(source, "train", max_unreadable=1, **HOW)
    with pytest.raises(KeyError):
        read(data)


def test_a_record_without_an_image_is_named_when_the_dataset_is_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = tf.io.encode_png(tf.zeros((9, 9, 3), tf.uint8)).numpy()
    with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
        for i in range(9):
            feature = {"image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 2]))}
            if i != 5:
                feature["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[whole]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    with pytest.raises(ValueError, match="train-0', the record at byte .* has no key 'image/encoded'"):
        load(f"tfrecord:{tmp_path}/train-0", "train", **HOW)


def test_damaged_files_are_skipped_up_to_a_share(images):
    for name, content in (("cat/03.png", b""), ("dog/04.png", b"text"), ("dog/05.png", None)):
        whole = (images / name).read_bytes()
        (images / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    how = HOW | {"val_fraction": 0.01}  # none is held out
    data = load(f"folder:{images}", "train", max_unreadable=0.1, **how)
    read(data)
    assert {name[-10:]: file.class_name for name, file in data.unreadable.items()} == {
        "cat/03.png": "cat", "dog/04.png": "dog", "dog/05.png": "dog",
    }  # fmt: skip
    reasons = {name[-6:]: file.reason for name, file in data.unreadable.items()}
    assert reasons["03.png"] == "the file is empty"
    assert reasons["04.png"].startswith("its format is none of JPEG, PNG")
    with pytest.raises(
        ValueError,
        match=r"3 of 40 images of the split 'train' failed to decode, `max_unreadable` is 0.07; the last",
    ):
        read(load(f"folder:{images}", "train", max_unreadable=0.07, **how))
    with pytest.raises(ValueError, match="`max_unreadable` must be in"):
        load(f"folder:{images}", "train", max_unreadable=1.1, **how)


@pytest.mark.parametrize("training", [True, False])
def test_a_dataset_of_damaged_files_alone_ends(images, training):
    data = load(f"folder:{images}", "train", max_unreadable=1.0, **HOW | {"training": training})
    for path in images.rglob("*.png"):
        path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"32 of 32 images of the split .* failed to decode"):
        read(data)


@pytest.mark.parametrize("damaged", mostly_slow([{0, 1, 2, 3, 9}, {4, 5, 6, 7, 8, 9, 10, 11, 13}]))
def test_whole_batches_of_damaged_files_are_replaced_wherever_a_pass_begins(damaged):
    whole = tf.constant([tf.io.encode_png(tf.fill((9, 9, 3), np.uint8(i))).numpy() for i in range(20)])
    bad = tf.constant([i in damaged for i in range(20)])
    source = Source(
        ("a",), np.zeros(20, np.int64), lambda index: tf.where(bad[index], "damaged", whole[index])
    )
    how = HOW | {"max_unreadable": 1.0, "batch_size": 2}
    batches = [batch["image"][:, 0, 0, 0] for batch in read(load(source, "train", **how))]
    assert {round(level) for images in batches[:20] for level in images} == {*range(20)} - damaged
    for step in (1, 8, 22):
        [batch] = read(load(source, "train", start=2 * step, **how), 1)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batches[step])
    batches = read(load(source, "val", **how | {"training": False}))
    once = np.concatenate([batch["image"] for batch in batches])
    assert once[:, 0, 0, 0].round().tolist() == sorted({*range(20)} - damaged)


def test_a_run_whose_images_go_away_ends_in_a_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    dark_and_light(tmp_path / "data")
    texts = [tmp_path / name for name in ("stdout", "stderr")]
    process = start("kvision-train", *TINY, "--batch_size=16", "--steps_per_loop=1", "--epochs=100000",
                    f"--data=folder:{tmp_path}/data", f"--output={tmp_path}/run", texts=texts)  # fmt: skip
    while process.is_alive() and not (texts[0].exists() and "epoch 1/" in texts[0].read_text()):
        process.join(0.1)
    shutil.rmtree(tmp_path / "data")
    process.join(30)
    assert process.exitcode == 75, texts[1].read_text()
    assert "is not there any more." in texts[1].read_text()
    assert "Traceback" not in texts[1].read_text()


def test_unreadable_files_are_counted_by_class_where_they_have_one(capsys):
    report_unreadable({"a.png": Unreadable("the file is empty", "")}, strict=False)
    assert capsys.readouterr().err.endswith("Skipped 1 unreadable file.\n")
    report_unreadable({"a.png": Unreadable("the file is empty", "cat")}, strict=False)
    assert capsys.readouterr().err.endswith("Skipped 1 unreadable file: 1 of 'cat'.\n")
