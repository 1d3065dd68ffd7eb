"""Images that are kept after they were first read."""

import concurrent.futures

import numpy as np
import pytest

from kvision.data import load
from kvision.data.cache import Disk
from kvision.data.identity import Files


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("augment", ["none", "crop"])
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
        np.testing.assert_allclose(ours[0], theirs[0], atol=3)  # a box of a JPEG, or a box of its pixels
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_one_image_is_cached_by_several_threads_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = Disk(Files(["a"], ".", np.zeros(1, np.int64)))

    def put_and_get(_):
        kept[0] = bytes(100_000)
        return kept.get(0)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(put_and_get, range(400))) == {bytes(100_000)}
    assert len([path for path in kept.folder.rglob("*") if path.is_file()]) == 1
