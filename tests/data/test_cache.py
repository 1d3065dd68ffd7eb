"""Images that are kept after they were first read."""

import concurrent.futures
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import mostly_slow
from PIL import Image

from kvision.data import load
from kvision.data.cache import Disk
from kvision.data.identity import Files


@pytest.mark.parametrize("cache", mostly_slow(["ram", "disk"], "disk"))
@pytest.mark.parametrize("augment", mostly_slow(["none", "crop"], "crop"))
def test_caches_hold_what_was_read(folder, tmp_path_factory, monkeypatch, cache, augment):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    how = {"image_size": (8, 8), "training": True, "batch_size": 16, "augment": augment}
    how["max_unreadable"] = 1
    plain = load(f"folder:{folder}", "train", **how).dataset.as_numpy_iterator()
    expected = [next(plain) for _ in range(4)]
    kept = load(f"folder:{folder}", "train", cache=cache, **how)
    batches = kept.dataset.as_numpy_iterator()
    got = [next(batches) for _ in range(2)]
    assert len(kept.unreadable) >= 1
    for path in folder.rglob("*.*"):
        if path.name not in ("notes.txt", "cut.jpg"):
            path.write_bytes(b"gone")  # whoever reads it now finds no image
    got += [next(batches) for _ in range(2)]
    for ours, theirs in zip(got, expected, strict=True):
        # a box of a JPEG, or a box of its pixels
        np.testing.assert_allclose(ours["image"], theirs["image"], atol=3)
        np.testing.assert_array_equal(ours["label"], theirs["label"])


def test_one_image_is_cached_by_several_threads_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = Disk(Files(["a"], ".", np.zeros(1, np.int64)).key)

    def put_and_get(_):
        kept[0] = bytes(100_000)
        return kept.get(0)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(put_and_get, range(400))) == {bytes(100_000)}
    assert len([path for path in kept.folder.rglob("*") if path.is_file()]) == 1


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "kvision"


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project", 0)


def make_project(root, level):
    """Two classes of ten images, each of its own level; equal names and sizes whatever the first one is."""
    for label, name in enumerate(("cat", "dog")):
        (root / "data" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (8, 8), level + 10 * label + i).save(root / "data" / name / f"{i}.bmp")
    return root


def read(project, kind="disk"):
    """The label of each level in the project, as read through the cache."""
    data = load(f"folder:{project}/data", "train", image_size=(8, 8), channels=1, cache=kind)
    batches = list(data.dataset.as_numpy_iterator())
    images, labels = (np.concatenate([batch[name] for batch in batches]) for name in ("image", "label"))
    assert not data.unreadable
    return dict(zip(images[:, 0, 0, 0].round().astype(int).tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize("kind", mostly_slow(["ram", "disk"], "disk"))
def test_what_changed_since_is_read_anew(project, cache, tmp_path, monkeypatch, kind):
    first = read(project, kind)
    assert len(first) == 16
    assert {level // 10 for level in first} == {0, 1}
    assert read(project, kind) == first
    for path in project.rglob("*.bmp"):  # replaced by images of equal size
        time = path.stat().st_mtime_ns
        Image.new("L", (8, 8), 100 + np.asarray(Image.open(path))[0, 0].item()).save(path)
        os.utime(path, ns=(time + 1, time + 1))
    assert read(project, kind) == {100 + level: label for level, label in first.items()}
    (project / "data" / "dog").rename(project / "data" / "ape")  # now the first class
    assert read(project, kind) == {100 + level: 1 - label for level, label in first.items()}
    other = make_project(tmp_path / "other", 50)  # of equal names, and times
    for path in other.rglob("*.bmp"):
        twin = project / "data" / ("ape" if path.parent.name == "dog" else "cat") / path.name
        os.utime(path, ns=(twin.stat().st_mtime_ns,) * 2)
    monkeypatch.chdir(other)
    assert read(Path("."), kind) == {50 + level: label for level, label in first.items()}


def full_disk(cache, monkeypatch):
    write = Path.write_bytes
    left = [5000]

    def write_bytes(path, content):
        left[0] -= len(content)
        if left[0] < 0:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def file_in_its_place(cache, monkeypatch):
    cache.write_text("")


def no_home(cache, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)


def read_only(cache, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)


@pytest.mark.parametrize("fault", [full_disk, file_in_its_place, no_home, read_only])
def test_a_cache_that_fails_is_not_used(project, cache, monkeypatch, capfd, fault):
    monkeypatch.setattr("kvision.data.cache.SAID", set())
    with monkeypatch.context() as patch:
        fault(cache, patch)
        labels = read(project)
    assert len(labels) == 16
    assert labels == {level: level // 10 for level in labels}
    assert capfd.readouterr().err.count("The cache is not used any more: ") == 1
    assert not list(cache.rglob("*.*"))  # half of a file
    assert read(project) == labels


def test_a_cache_that_is_damaged_or_vanishes_is_filled_anew(project, cache, capfd):
    expected = read(project)
    for i, path in enumerate(files(cache)):
        content = path.read_bytes()
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        path.write_bytes((content[:-9], flipped, b"", content[:7], bytes(len(content)))[i % 5])
    assert read(project) == expected
    assert all(len(path.read_bytes()) > 1000 for path in files(cache))
    one, other, *_ = files(cache)
    shutil.copy(one, other)
    assert read(project) == expected
    shutil.rmtree(cache)
    assert read(project) == expected
    assert len(files(cache)) == 16
    assert "cache" not in capfd.readouterr().err


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_a_cache_that_vanishes_during_training_loses_no_image(project, cache, capfd):
    data = load(
        f"folder:{project}/data", "train", image_size=(8, 8), training=True, batch_size=4, cache="disk"
    )
    batches = data.dataset.as_numpy_iterator()
    seen = set()
    for step in range(12):
        seen |= {round(float(level)) for level in next(batches)["image"][:, 0, 0, 0]}
        if step % 3 == 1:
            shutil.rmtree(cache, ignore_errors=True)
    assert seen == set(read(project))
    assert not data.unreadable


def test_images_that_change_places_change_in_the_cache_too(tmp_path, monkeypatch):
    """Renaming keeps a file's time, and both have one size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for level, name in ((50, "cat"), (200, "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            path = tmp_path / "data" / name / f"{i}.bmp"
            Image.fromarray(np.full((9, 9, 3), level, "uint8")).save(path)
            os.utime(path, (0, 0))

    def levels():
        data = load(f"folder:{tmp_path}/data", "all", image_size=(8, 8), cache="disk")
        return [int(image.mean()) for batch in data.dataset.as_numpy_iterator() for image in batch["image"]]

    assert levels() == [50, 50, 200, 200]
    (tmp_path / "data/cat/0.bmp").rename(tmp_path / "aside")
    (tmp_path / "data/dog/0.bmp").rename(tmp_path / "data/cat/0.bmp")
    (tmp_path / "aside").rename(tmp_path / "data/dog/0.bmp")
    assert levels() == [200, 50, 50, 200]
