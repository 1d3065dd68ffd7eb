"""Clips: folders of frames, GIFs and video files, which frames are taken, and squares that move."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from masks import read
from PIL import Image

from kvision.data import clips, load, read_errors
from kvision.data.clips import chosen, read_frames
from kvision.data.sources import open_source
from kvision.data.sources.moving import CLASSES, COUNTS, SIZE, move
from kvision.errors import UserError

HOW = {"image_size": (8, 8), "target": "clip"}
random = np.random.default_rng(0)


def write_clip(folder, levels, names=None, size=(8, 8)):
    """A folder of frames of a level of grey each."""
    folder.mkdir(parents=True)
    for place, level in enumerate(levels):
        name = names[place] if names else f"frame{place}.png"
        Image.fromarray(np.full((*size, 3), level, "uint8")).save(folder / name)


def write_gif(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others)


@pytest.fixture
def root(tmp_path):
    """Two classes of three clips of 12 frames, of which the level tells the clip and the place."""
    for label, name in enumerate(("jump", "walk")):
        for number in range(3):
            write_clip(tmp_path / name / f"clip {number}", 100 * label + 30 * number + np.arange(12))
    return tmp_path


def levels_of(batch):
    return batch["image"].mean((2, 3, 4)).round().astype(int).tolist()


def test_frames_are_evenly_spread_in_their_natural_order(root):
    """frame10 comes after frame9, not after frame1."""
    data = load(f"video:{root}", "all", length=4, batch_size=6, **HOW)
    assert (data.size, data.class_names) == (6, ("jump", "walk"))
    [batch] = read(data)
    assert batch["image"].shape == (6, 4, 8, 8, 3)
    assert batch["image"].dtype == np.float32
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1]
    starts = [0, 30, 60, 100, 130, 160]
    assert levels_of(batch) == [[start + place for place in (1, 4, 7, 10)] for start in starts]
    assert chosen(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert chosen(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert chosen(1, 3).tolist() == [0, 0, 0]


def test_training_takes_a_stretch_of_at_least_half():
    for count, length in ((12, 4), (12, 12), (7, 2), (3, 8), (100, 10)):
        spans = []
        for _ in range(300):
            places = chosen(count, length, random.uniform(size=2))
            assert places.shape == (length,)
            assert (np.diff(places) >= 0).all()
            assert 0 <= places[0] <= places[-1] < count
            if count >= length:
                assert len({*places.tolist()}) == length  # no frame twice
            spans.append(places[-1] - places[0] + 1)
        if count == 100:
            assert min(spans) >= 45  # the middles of ten parts of 50 frames or more
            assert min(spans) < 50
            assert max(spans) > 85


def test_batches_follow_from_seed_and_position(root):
    def batches(count, start=0, shard=(0, 1), size=3, **keywords):
        how = HOW | {"length": 3, "training": True, "augment": "crop_flip", "seed": 3} | keywords
        data = load(f"video:{root}", "all", batch_size=size, start=start, shard=shard, **how)
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(count), strict=False)]

    whole = batches(4)
    for got, expected in zip(batches(2, start=6), whole[2:], strict=True):
        for name, part in expected.items():
            np.testing.assert_array_equal(got[name], part)
    for index in range(3):
        for got, expected in zip(batches(4, shard=(index, 3), size=1), whole, strict=True):
            np.testing.assert_array_equal(got["image"][0], expected["image"][index])
    first = [levels_of(batch) for batch in batches(8, augment="none")]
    assert first != [levels_of(batch) for batch in batches(8, augment="none", seed=4)]
    assert len({tuple(np.subtract(levels, levels[0])) for batch in first for levels in batch}) > 1


@pytest.mark.parametrize("augment", ["crop", "crop_flip", "flip", "scale_crop_flip"])
def test_all_frames_of_a_clip_are_augmented_alike(tmp_path, augment):
    """Frames of equal pixels stay equal, and examples differ; "crop" never turns left into right."""
    image = np.zeros((24, 24, 3), "uint8")
    image[:, 12:] = 200
    for place in range(3):
        (tmp_path / "a" / "1").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "a" / "1" / f"{place}.png")
    write_clip(tmp_path / "b" / "1", range(3))
    how = HOW | {"length": 3, "training": True, "augment": augment, "min_crop_area": 0.9, "batch_size": 20}
    batch = next(load(f"video:{tmp_path}", "all", **how).dataset.as_numpy_iterator())
    images = batch["image"][batch["label"] == 0]
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    np.testing.assert_array_equal(images[:, 0], images[:, 2])
    assert len(np.unique(images, axis=0)) > 1
    brighter = images[..., 4:, :].mean((1, 2, 3, 4)) > images[..., :4, :].mean((1, 2, 3, 4))
    assert brighter.all() if augment == "crop" else len({*brighter.tolist()}) == 2


def test_a_gif_is_read_as_tensorflow_reads_it(tmp_path):
    frames = random.integers(0, 256, (5, 6, 7), "uint8").repeat(4, 1).repeat(4, 2)
    write_gif(tmp_path / "a" / "1.GIF", frames)
    write_gif(tmp_path / "b" / "below" / "1.gif", frames[::-1])
    with open(tmp_path / "a" / "1.GIF", "rb") as file:
        expected = tf.io.decode_gif(file.read()).numpy()
    assert len(expected) == 5
    got = np.stack([*read_frames([str(tmp_path / "a" / "1.GIF")], np.arange, 3)])
    np.testing.assert_array_equal(got, expected)
    [batch] = read(load(f"video:{tmp_path}", "all", length=5, **HOW | {"image_size": (24, 28)}))
    np.testing.assert_array_equal(batch["image"][0], expected)
    np.testing.assert_array_equal(batch["image"][1], expected[::-1])
    grey = load(f"video:{tmp_path}", "all", length=2, channels=1, **HOW)
    assert next(grey.dataset.as_numpy_iterator())["image"].shape == (2, 2, 8, 8, 1)


def test_video_files(tmp_path):
    av = pytest.importorskip("av")
    levels = np.arange(20, 220, 10)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with av.open(str(tmp_path / name / "1.mp4"), "w") as film:
            stream = film.add_stream("mpeg4", rate=10, width=32, height=16, pix_fmt="yuv420p")
            for level in levels:
                frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), level, "uint8"), format="rgb24")
                film.mux(stream.encode(frame))
            film.mux(stream.encode())
    [batch] = read(load(f"video:{tmp_path}", "all", length=5, **HOW))
    np.testing.assert_allclose(batch["image"].mean((2, 3, 4)), [levels[[2, 6, 10, 14, 18]]] * 2, atol=4)
    whole = (tmp_path / "a" / "1.mp4").read_bytes()
    (tmp_path / "a" / "2.mp4").write_bytes(whole[: len(whole) // 2])
    data = load(f"video:{tmp_path}", "all", length=5, **HOW | {"max_unreadable": 0.5})
    assert len(read(data)[0]["image"]) == 2
    assert [*data.unreadable] == [str(tmp_path / "a" / "2.mp4")]


def test_video_files_need_a_package(root, monkeypatch):
    (root / "walk" / "film.mp4").write_bytes(b"film")
    monkeypatch.setattr(importlib.import_module("kvision.data.sources.video"), "has_pyav", lambda: False)
    with pytest.raises(
        ImportError, match=r"film.mp4' is a video file, which needs PyAV: pip install 'kvision\[video\]'"
    ):
        open_source(f"video:{root}", "train", target="clip")


def test_what_is_a_clip_and_what_is_left_out(root, capsys):
    (root / "walk" / "notes.txt").write_text("walking")
    (root / "walk" / "clip 0" / "labels.csv").write_text("walking")
    Image.new("RGB", (8, 8)).save(root / "walk" / "cover.png")
    write_clip(root / "jump" / "far" / "away", range(3))
    write_gif(root / "jump" / "far" / "film.gif", random.integers(0, 256, (3, 8, 8), "uint8"))
    source = open_source(f"video:{root}", "all", target="clip")
    names = [source.name_of(index).removeprefix(f"{root}/") for index in range(source.size)]
    assert names == [
        "jump/clip 0", "jump/clip 1", "jump/clip 2", "jump/far/away", "jump/far/film.gif",
        "walk/clip 0", "walk/clip 1", "walk/clip 2",
    ]  # fmt: skip
    err = capsys.readouterr().err
    assert "1 beside the folders of clips ('walk/cover.png')" in err
    assert "2 of other kinds (" in err
    train, val = (
        open_source(f"video:{root}", split, val_fraction=0.34, target="clip") for split in ("train", "val")
    )
    assert np.bincount(train.labels).tolist() == [3, 2]
    assert np.bincount(val.labels).tolist() == [2, 1]
    unlabeled = open_source(f"video:{root}/walk", "all", labeled=False, target="clip")
    assert (unlabeled.size, unlabeled.class_names) == (4, ("unlabeled",))  # the cover is a clip of its own


def test_splits_in_folders(root):
    for split in ("train", "valid"):
        (root / split).mkdir()
        for name in ("jump", "walk"):
            write_clip(root / split / name / split, range(2))
    for name in ("jump", "walk"):
        (root / name).rename(root / f".{name}")
    assert [open_source(f"video:{root}", split, target="clip").size for split in ("train", "val")] == [2, 2]
    (root / "valid").rename(root / ".valid")
    with pytest.raises(UserError, match="give 'video:.*/train', or 'train' and 'val' side by side"):
        open_source(f"video:{root}", "train", target="clip")


def test_damaged_clips_are_skipped(root):
    (root / "jump" / "clip 1" / "frame5.png").write_bytes(b"damaged")
    Image.new("RGB", (9, 8)).save(root / "walk" / "clip 0" / "frame7.png")
    data = load(f"video:{root}", "all", length=12, max_unreadable=0.5, **HOW)
    [batch] = read(data)
    assert [levels[0] for levels in levels_of(batch)] == [0, 60, 130, 160]
    reasons = {name.removeprefix(f"{root}/"): file for name, file in data.unreadable.items()}
    assert reasons["jump/clip 1"].reason == (
        f"frame 'frame5.png': its format is none of {', '.join(clips.decoding.FORMATS)}"
    )
    assert reasons["walk/clip 0"].reason == "its frames have 8 x 8 and 9 x 8 pixels"
    assert reasons["walk/clip 0"].class_name == "walk"
    data = load(f"video:{root}", "all", length=12, max_unreadable=0.1, **HOW)
    with (
        pytest.raises(UserError, match="1 of 6 images of the split 'all' failed to decode"),
        read_errors([data]),
    ):
        read(data)
    (root / "jump" / "clip 0" / "frame11.png").unlink()
    source = open_source(f"video:{root}", "all", target="clip")
    (root / "jump" / "clip 0" / "frame3.png").unlink()
    data = load(source, "all", length=12, max_unreadable=0.5, **HOW)
    with pytest.raises(FileNotFoundError, match="clip 0' is not there any more"), read_errors([data]):
        read(data)


def test_frames_that_change_are_noticed(root):
    before = open_source(f"video:{root}", "all", target="clip").identity
    Image.new("RGB", (8, 8), "red").save(root / "jump" / "clip 2" / "frame11.png")
    assert before.changes(open_source(f"video:{root}", "all", target="clip").identity)
    write_clip(root / "jump" / "clip 3", range(3))
    [change] = before.changes(open_source(f"video:{root}", "all", target="clip").identity)
    assert change == "class 'jump' has 4 images instead of 3"


def test_what_is_wrong(root):
    with pytest.raises(UserError, match="`length` of 'clip' must be a number of frames, 1 or more; got 0."):
        load(f"video:{root}", "all", length=0, **HOW)
    with pytest.raises(UserError, match="`cache` of clips must be 'none'; got 'ram'."):
        load(f"video:{root}", "all", length=2, cache="ram", **HOW)
    with pytest.raises(
        UserError, match="'folder:x' gives labels and no clips: shapes or video:PATH was expected"
    ):
        open_source("folder:x", "all", target="clip", labeled=False)
    with pytest.raises(UserError, match="'video:x' gives clips and no labels"):
        open_source("video:x", "all", labeled=False)
    with pytest.raises(UserError, match="Did you mean 'video:"):
        open_source(str(root), "all", target="clip")
    with pytest.raises(FileNotFoundError, match="There is no folder '/nowhere'"):
        open_source("video:/nowhere", "all", target="clip")
    for number in range(3):
        for frame in (root / "walk" / f"clip {number}").glob("*"):
            frame.write_bytes(b"damaged")
    with pytest.raises(
        UserError, match="classes without an image that can be read, .* 'walk' 2 .2 failed to decode"
    ):
        open_source(f"video:{root}", "train", target="clip", val_fraction=0.34)


def centroids(clip):
    """The centre of the square in each frame, on a torus: the angle of the mean of its pixels' angles."""
    background = np.median(clip, axis=(0, 1, 2))
    inside = np.abs(clip - background).max(-1) > 45
    angles = np.exp(2j * np.pi * (np.arange(SIZE) + 0.5) / SIZE)
    return np.stack(
        [np.angle((inside.sum(axis) * angles).sum(-1)) * SIZE / (2 * np.pi) % SIZE for axis in (1, 2)], -1
    )


def test_squares_move_as_their_class_says():
    for index in range(40):
        movement = move(1, index)
        steps = (np.diff(centroids(movement.clip), axis=0) + SIZE / 2) % SIZE - SIZE / 2
        expected = np.array([*CLASSES.values()][index % 4])
        along, across = steps @ expected, steps @ (1 - np.abs(expected))
        assert (1.3 < along.mean() < 3.2) & (np.abs(across.mean()) < 0.3), index
        apart = (centroids(movement.clip) - movement.series[:, :2] + SIZE / 2) % SIZE - SIZE / 2
        assert np.median(np.abs(apart)) < 1


def test_drawn_clips_and_series():
    data = load("shapes", "val", length=8, batch_size=300, **HOW | {"image_size": (32, 32)})
    [batch] = read(data)
    assert batch["image"].shape == (300, 8, 32, 32, 3)
    assert np.bincount(batch["label"]).tolist() == [75] * 4
    assert data.class_names == tuple(CLASSES) == ("left", "right", "up", "down")
    np.testing.assert_array_equal(batch["image"][7], move(1, 7).clip)
    [batch] = read(load("shapes", "val", length=8, batch_size=300, target="sequence"))
    np.testing.assert_array_equal(batch["series"][7], move(1, 7).series)
    assert np.bincount(batch["label"]).tolist() == [75] * 4
    source = open_source("shapes", "train", target="sequence")
    assert source.size == COUNTS["train"]
    # a single frame tells nothing: squares are anywhere in the first, whatever the class
    firsts = np.stack([centroids(move(1, index).clip[:1])[0] for index in range(300)])
    means = [firsts[label::4].mean(0) for label in range(4)]  # of 75 uniform numbers: 1.1 pixels off
    np.testing.assert_allclose(means, SIZE / 2, atol=4.5)
