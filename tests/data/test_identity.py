"""Identity of a dataset: changes that it shows, and changes that it ignores."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import write_images

from kvision.data import identity
from kvision.data.identity import Identity
from kvision.data.sources import open_source

OTHERS = ["images have other names, sizes, contents, labels or boxes, or another order"]


@pytest.fixture
def root(tmp_path):
    return write_images(tmp_path / "data", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)))


@pytest.fixture(params=["read", "not read"])
def whether_read(request, monkeypatch):
    """Contents count where all files together are small."""
    monkeypatch.setattr(identity, "CHEAP", 2**26 if request.param == "read" else 0)
    return request.param == "read"


def of(root, split="all", **keywords):
    return open_source(f"folder:{root}", split, **keywords).identity


def test_a_copy_is_the_same_dataset(root, tmp_path, monkeypatch, whether_read):
    before = of(root)
    assert before.class_names == ("cat", "dog")
    assert before.counts == (4, 4)
    assert Identity.from_json(json.loads(json.dumps(before.to_json()))) == before
    shutil.copytree(root, tmp_path / "copy")  # with the times
    assert of(tmp_path / "copy") == before
    monkeypatch.chdir(root)
    assert of(".") == of(f"{root}/") == of(f"../{root.name}") == before


def test_what_changes_a_folder_is_said(root, whether_read):
    before = of(root)

    def changes():
        after = of(root)
        assert not before.touched(after)
        return before.changes(after)

    (root / "cat").rename(root / "kitten")
    assert changes() == ["class 'cat' is gone", "class 'kitten' is new"]
    (root / "kitten").rename(root / "cat")
    assert changes() == []
    write_images(root, "cat/9.png")
    assert changes() == ["class 'cat' has 5 images instead of 4"]
    (root / "cat/9.png").rename(root / "dog/9.png")
    (root / "dog/0.png").rename(root / "cat/9.png")
    (root / "cat/0.png").unlink()
    assert changes() == OTHERS
    (root / "dog/9.png").unlink()
    assert changes() == ["class 'dog' has 3 images instead of 4"]


def test_an_image_of_the_same_size_is_seen_by_its_content_or_time(root, whether_read):
    before = of(root)
    path = root / "dog" / "1.png"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    other = (root / "dog" / "2.png").read_bytes()
    assert len(other) == len(content)
    assert other != content
    path.write_bytes(other)
    os.utime(path, ns=(times[0], times[1] + 1))
    after = of(root)
    assert before.changes(after) == (OTHERS if whether_read else [])
    assert before.touched(after) == (not whether_read)
    path.write_bytes(content)
    os.utime(path, ns=(times[0], times[1] + 2))
    assert before.changes(of(root)) == []
    assert before.touched(of(root)) == (not whether_read)


def test_what_changes_a_list(root, whether_read):
    def of_rows(*rows):
        (root / "list.csv").write_text("\n".join(["path,label,split", *rows]))
        return open_source(f"csv:{root}/list.csv", "train").identity

    rows = ["cat/0.png,cat,train", "cat/1.png,cat,train", "dog/0.png,dog,train", "dog/1.png,dog,train"]
    before = of_rows(*rows)
    assert before == of_rows(*rows, "dog/2.png,dog,val")  # each split is by itself
    corrected = of_rows("cat/0.png,dog,train", rows[1], "dog/0.png,cat,train", rows[3])
    assert before.changes(corrected) == OTHERS  # as many of each class
    assert before.changes(of_rows(*rows[::-1])) == OTHERS
    assert before.changes(of_rows(*rows[:3], "dog/1.png,cat,train")) == [
        "class 'cat' has 3 images instead of 2",
        "class 'dog' has 1 image instead of 2",
    ]


def test_splits_of_a_dataset_differ(root):
    train, val = (of(root, split, val_fraction=0.5) for split in ("train", "val"))
    assert train.counts == val.counts == (2, 2)
    assert train.changes(val) == OTHERS
    assert train.changes(of(root, "train", val_fraction=0.25)) == [
        "class 'cat' has 3 images instead of 2",
        "class 'dog' has 3 images instead of 2",
    ]
    digits = [open_source("digits", split).identity for split in ("train", "val", "train")]
    assert digits[0] == digits[2]
    assert [sum(one.counts) for one in digits] == [1437, 360, 1437]
    assert digits[0].changes(digits[1])


def test_many_changes_are_shortened():
    names = tuple(f"class {i}" for i in range(1000))
    before, after = Identity(names, (1,) * 1000, "", ""), Identity(names[::-1], (1,) * 1000, "", "")
    assert before.changes(after) == ["the classes have another order"]
    changes = before.changes(Identity((*names[:500], "\x1b" * 900), (1,) * 501, "", ""))
    assert len(changes) == 6
    assert changes[-1] == "and 496 more"
    escaped = before.changes(Identity((*names, "\x1b" * 900), (1,) * 1001, "", ""))
    assert len(escaped[0]) < 250
    assert escaped[0].isprintable()


def test_files_that_are_gone_change_a_dataset(root):
    source = open_source(f"folder:{root}", "all")
    before = identity.identify(source.class_names, source.labels, source.files)
    (root / "cat" / "0.png").unlink()
    gone = identity.Files(source.files.paths, source.files.root, np.arange(8))
    assert before.changes(identity.identify(source.class_names, source.labels, gone)) == OTHERS
