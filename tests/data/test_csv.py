"""CSV lists: their columns and rows, and where their paths may lead."""

import os
import re

import numpy as np
import pytest
from helpers import command, pairs, write_images

from kvision.data import load
from kvision.data.sources import open_source


def write_csv(folder, text):
    (folder / "list.csv").write_text(text)
    return f"csv:{folder / 'list.csv'}"


def opened(folder, text, split="all", **keywords):
    """The names of the classes, and the files with their labels."""
    source = open_source(write_csv(folder, text), split, **keywords)
    files = [os.path.relpath(path, folder) for path in source.files.paths]
    return source.class_names, dict(zip(files, source.labels.tolist(), strict=True))


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", "a/1.png", "a/2.png", "b/1.png", "b/2.png")


def test_splits(folder):
    rows = [f"{path.relative_to(folder)},{path.parent.name}s" for path in sorted(folder.rglob("*.png"))]
    data = write_csv(folder, "\n".join(["path,label", *rows]))
    splits = {s: load(data, s, image_size=(8, 8), val_fraction=0.4) for s in ("train", "val")}
    seen = sorted(pairs(splits["train"]) + pairs(splits["val"]))
    assert seen == sorted((100 * label + i, label) for label in (0, 1) for i in range(1, 10, 2))
    assert (splits["train"].size, splits["val"].size) == (6, 4)
    assert splits["train"].class_names == ("cats", "dogs")
    rows = [f"{row},{('val', ' Test ')[i % 2] if i < 3 else 'Training'}" for i, row in enumerate(rows)]
    data = write_csv(folder, "\n".join(["path,label,split", *rows[:3], *rows[3:]]))
    sizes = {"train": 7, "val": 2, "test": 1, "all": 10}
    for split, size in sizes.items():
        if split == "train":
            assert open_source(data, split).class_names == ("cats", "dogs")
        assert open_source(data, split).size == size
    data = write_csv(folder, "path,label,split\ncat/1.png,cat,train\ndog/1.png,dog,train\ncat/3.png,cat,test")
    assert open_source(data, "val").size == 1
    with pytest.raises(ValueError, match="'dog' 0"):
        open_source(write_csv(folder, "path,label,split\ncat/1.png,cat,train\ndog/1.png,dog,val"), "train")


def test_blanks_around_names_and_backslashes_in_paths(images):
    text = '\ufeff path , label \r\na\\1.png, cat \r\n\r\n"a/2.png","cat"\r\n.\\b\\1.png,dog\r\n,\r\n'
    assert opened(images, text) == (("cat", "dog"), {"a/1.png": 0, "a/2.png": 0, "b/1.png": 1})
    os.rename(images / "b/2.png", images / "b\\2.png")  # a name of this system, not a separator
    (images / "b/2.png").write_text("another")
    assert opened(images, "path,label\na/1.png,cat\nb\\2.png,dog") == (
        ("cat", "dog"),
        {"a/1.png": 0, "b\\2.png": 1},
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,a", "columns 'path' and 'label', each once; its first line is ['file', 'label']"),
        ("path;label\na/1.png;a", "['path;label']. Fields are separated by ',', not by ';'"),
        ("path\tlabel\na/1.png\ta", r"not by '\t'"),
        ("path,label,label\na/1.png,a,b", "each once"),
        ("", "is empty: the columns 'path' and 'label' were expected"),
        ("path,label", "lists no files for the split 'all'; it has 0 rows"),
        ("path,label\n../a.png,a", "row 2: a path below the file's folder was expected; got '../a.png'"),
        ("path,label\n..\\a.png,a", "row 2: a path below the file's folder"),
        ("path,label\na/1.png,a\n/etc/a.png,a", "row 3: a path .*'/etc/a.png'. --allow_outside takes it"),
        ("path,label\nC:\\a\\1.png,a", r"row 2: .*another system .*'C:\\a\\1.png'"),
        ("path,label\na/1.png,", "row 2: a path and a label were expected; got 'a/1.png', ''"),
        ("path,label\n,a", "row 2: a path and a label were expected; got '', 'a'"),
        ("path,label\na/\0.png,a", "row 2: a path and a label"),
        ("path,label\na/1.png", "row 2: 2 fields were expected; got 1: ['a/1.png']"),
        ("path,label\na/1.png,a,b", "row 2: 2 fields were expected; got 3"),
        ("path,label,split\na/1.png,a,tset", "row 2: the split must be train, val or test; got 'tset'"),
        ("path,label,split\na/1.png,a,", "row 2: the split must be train, val or test; got ''"),
        ("path,label\na/1.png,a\na/9.png,a\nb,b", "2 of the 3 files .*'a/9.png', row 3: .* is absent"),
        ("path,label\na/1.png,a\nb,b", "1 of the 2 files .*'b', row 3: .* is no regular file"),
        ('path,label\na/1.png,"a\nb/1.png,b', "row 3: .*is a quotation mark not closed"),
        (f"path,label\na/1.png,{'a' * 200_000}", "row 2: field larger than field limit (131072)"),
        (f"path,label\na/1.png,{'a' * 2000}", "a class whose name has 2000 characters"),
        ('path,label\na/1.png,"a\nb"', r"class 'a\nb' has a control character"),
        ("path,label\na/1.png,a\x1b[31m", r"class 'a\x1b[31m' has a control"),
        ("path,label\na/1.png,caf\u00e9\nb/1.png,cafe\u0301", r"look the same: 'cafe\u0301' and 'caf\xe9'"),
        ("path,label\na/1.png,a\nb/1.png,b\na/1.png,b", "rows 2 and 4: .* the label 'a' and 'b'"),
        ("path,label,split\na/1.png,a,val\na/1.png,a,train", "rows 2 and 3: .*the split 'val' and 'train'"),
    ],
)  # fmt: skip
def test_lists_that_are_wrong(images, text, words):
    pattern = re.escape(words).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=pattern) as raised:
        opened(images, text)
    assert len(str(raised.value)) < 600
    assert str(raised.value).isprintable()


def test_several_labels_an_image(images):
    """Blanks and repetitions do not count; an image may have no label."""
    text = "path,label\na/1.png, dog | cat \na/2.png,cat|cat\nb/1.png,\nb/2.png,cow\na/1.png,cat|dog"
    data = write_csv(images, text)
    source = open_source(data, "all", target="labels")
    assert source.class_names == ("cat", "cow", "dog")
    expected = [[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert source.labels.tolist() == expected
    moved = source.with_classes(("ant", "dog", "cow", "cat"), (3, 2, 1))
    assert moved.labels.tolist() == [[0, b, c, a] for a, c, b in expected]
    [batch] = load(moved, "all", image_size=(8, 8), target="labels").dataset.as_numpy_iterator()
    assert batch.keys() == {"image", "weight", "labels"}
    np.testing.assert_array_equal(batch["labels"], moved.labels)
    other = open_source(write_csv(images, text.replace("cow", "cow|dog")), "all", target="labels")
    assert source.identity.changes(other.identity) == ["class 'dog' has 3 images instead of 2"]
    swapped = text.replace("a/2.png,cat|cat\nb/1.png,", "a/2.png,\nb/1.png,cat")
    [change] = source.identity.changes(
        open_source(write_csv(images, swapped), "all", target="labels").identity
    )
    assert "other names, sizes, contents, labels or boxes" in change


def test_a_random_share_of_images_with_several_labels_is_held_out(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    write_images(tmp_path, *names)
    labels = ["a|b", "b", "", "a"] * 5
    data = write_csv(tmp_path, "\n".join(["path,label", *map("{},{}".format, names, labels)]))
    splits = [open_source(data, split, val_fraction=0.3, target="labels") for split in ("train", "val")]
    assert [source.size for source in splits] == [14, 6]
    train, val = ({os.path.basename(path) for path in source.files.paths} for source in splits)
    assert train | val == {*names}
    for source in splits:
        there = [labels[names.index(os.path.basename(path))] for path in source.files.paths]
        assert source.labels.tolist() == [["a" in label, "b" in label] for label in there]


def test_labels_of_other_datasets_are_one_an_image(folder):
    data = load(f"folder:{folder}", "all", image_size=(8, 8), target="labels")
    single = load(f"folder:{folder}", "all", image_size=(8, 8))
    for batch, its in zip(data.dataset.as_numpy_iterator(), single.dataset.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(batch["labels"], np.eye(2)[its["label"]])


def test_a_bar_in_the_label_of_a_single_class_is_pointed_out(images, capsys):
    text = "path,label\na/1.png,cat|dog\nb/1.png,cat"
    assert opened(images, text)[0] == ("cat", "cat|dog")
    assert "has labels such as 'cat|dog', each of which is one class: a training with --task=multilabel" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "path,label\na/1.png,cat|",
            "row 2: labels with '|' between them, or none .* got 'cat|', where one is",
        ),
        ("path,label\na/1.png,cat\nb/1.png,| dog", "row 3: .*got '| dog', where one is empty"),
        ("path,label\n,cat|dog", "row 2: a path and a label were expected; got '', 'cat|dog'"),
        (
            "path,label\na/1.png,cat|dog\na/1.png,cat",
            "rows 2 and 3: the same file has the label 'cat|dog' and 'cat'",
        ),
    ],
)
def test_lists_of_several_labels_that_are_wrong(images, text, words):
    with pytest.raises(ValueError, match=re.escape(words).replace(r"\.\*", ".*")):
        opened(images, text, target="labels")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("latin-1", "must be UTF-8; it is in another encoding: line 3 has the byte 0xe9"),
        ("utf-16", "in UTF-16"),
    ],
)
def test_other_encodings_name_the_file(images, encoding, words):
    (images / "list.csv").write_bytes("path,label\na/1.png,a\nb/1.png,café".encode(encoding))
    with pytest.raises(ValueError, match=f"list.csv' .*{words}"):
        open_source(f"csv:{images}/list.csv", "all")


def test_a_file_that_is_listed_again_counts_again_in_one_split_only(images):
    text = "path,label,split\na/1.png,a,train\na/1.png,a,train\nb/1.png,b,train\nb/2.png,b,val"
    assert open_source(write_csv(images, text), "train").size == 3
    text = "path,label\n" + 2 * "a/1.png,a\n./a/1.png,a\na\\1.png,a\n" + "b/1.png,b\nb/2.png,b\n"
    path = write_csv(images, text)
    splits = [open_source(path, split, val_fraction=0.5) for split in ("train", "val", "all")]
    train, val, every = ([source.name_of(index) for index in range(source.size)] for source in splits)
    assert len(train + val) == len(every) == 8
    assert not {*map(os.path.normpath, train)} & {*map(os.path.normpath, val)}


def test_a_file_with_two_names_is_one_file(images):
    (images / "link.png").symlink_to(images / "a/1.png")
    text = "path,label\na/1.png,a\n{},b"
    for name, how in (("link.png", {}), (images / "a" / "1.png", {"allow_outside": True})):
        with pytest.raises(ValueError, match="rows 2 and 3: the same file has the label 'a' and 'b'"):
            opened(images, text.format(name), **how)


def test_links_that_leave_the_folder(images, tmp_path):
    outside = write_images(tmp_path / "outside", "1.png", "2.png")
    os.symlink(outside, images / "linked")
    os.symlink(outside / "1.png", images / "a" / "3.png")
    os.symlink("1.png", images / "a" / "4.png")
    os.symlink(images, tmp_path / "root")
    assert opened(tmp_path / "root", "path,label\na/4.png,a\nb/1.png,b")[1] == {"a/4.png": 0, "b/1.png": 1}
    for path in ("linked/1.png", "a/3.png"):
        text = f"path,label\na/1.png,a\n{path},b"
        with pytest.raises(ValueError, match=f"row 3: a symbolic link leads outside .*'{path}'"):
            opened(images, text)
        assert opened(images, text, allow_outside=True)[1] == {"a/1.png": 0, path: 1}
    text = f"path,label\n{outside}/1.png,a\n../outside/2.png,b"
    assert opened(images, text, allow_outside=True)[1] == {"../outside/1.png": 0, "../outside/2.png": 1}


def test_a_list_in_the_working_folder(images, monkeypatch):
    write_csv(images, "path,label\na/1.png,a\nb/1.png,b")
    monkeypatch.chdir(images)
    here, there = (open_source(f"csv:{path}", "all") for path in ("list.csv", images / "list.csv"))
    assert here.identity == there.identity
    monkeypatch.setenv("HOME", str(images))
    assert open_source("csv:~/list.csv", "all").identity == here.identity


@pytest.mark.slow
def test_commands_take_paths_outside(tmp_path):
    outside = write_images(tmp_path / "outside", *(f"{name}/{i}.png" for name in "ab" for i in range(4)))
    rows = [f"{path},{path.parent.name}" for path in sorted(outside.rglob("*.png"))]
    (tmp_path / "lists").mkdir()
    data = write_csv(tmp_path / "lists", "\n".join(["path,label", *rows]))
    train = ["kvision-train", "--model=lenet5", "--epochs=1", "--batch_size=2", f"--data={data}"]
    train += ["--channels=1", "--val_fraction=0.5", f"--output={tmp_path / 'run'}"]
    assert "row 2: a path below the file's folder was expected" in command(*train, code=2)
    command(*train, "--allow_outside")
    evaluated = command("kvision-evaluate", f"--model={tmp_path / 'run'}")  # as it was trained
    assert "on 4 images" in evaluated
    evaluate = ["kvision-evaluate", f"--model={tmp_path / 'run'}", f"--data={data}", "--split=all"]
    assert "--allow_outside takes it" in command(*evaluate, code=2)
    assert "on 8 images" in command(*evaluate, "--allow_outside")
