"""Class folders: what belongs to a class, what is left out, and which folders are splits."""

import os

import numpy as np
import pytest
from helpers import pairs, write_images

from kvision.data import load
from kvision.data.sources import open_source
from kvision.errors import NoLabels, UserError


@pytest.fixture(autouse=True)
def sentences_are_new():
    from kvision.names import say_once

    say_once.cache_clear()


def names(source, root):
    return [os.path.relpath(path, root) for path in source.files.paths]


def opened(root, split="all", **keywords):
    source = open_source(f"folder:{root}", split, **keywords)
    return list(source.class_names), names(source, root)


def test_every_class_is_split_and_unreadable_files_are_reported(folder):
    how = {"image_size": (8, 8), "val_fraction": 0.3, "max_unreadable": 1}
    splits = {split: load(f"folder:{folder}", split, **how) for split in ("train", "val")}
    seen = {split: pairs(data) for split, data in splits.items()}
    everything = sorted(seen["train"] + seen["val"])
    assert everything == sorted((100 * label + i, label) for label in (0, 1) for i in range(10))
    assert {label for _, label in seen["val"]} == {0, 1}
    unreadable = [*splits["train"].unreadable, *splits["val"].unreadable]
    assert sorted(unreadable) == [str(folder / "cat/notes.txt"), str(folder / "dog/cut.jpg")]
    assert splits["train"].class_names == ("cat", "dog")


def test_without_labels_images_lie_anywhere(tmp_path, capsys):
    flat = write_images(tmp_path / "flat", *(f"{i}.png" for i in range(5)), ".hidden.png")
    with pytest.raises(NoLabels, match="no folders but 5 files"):
        opened(flat)
    assert opened(flat, labeled=False) == (["unlabeled"], [f"{i}.png" for i in range(5)])
    parts = [opened(flat, split, labeled=False)[1] for split in ("train", "val")]
    assert sorted(parts[0] + parts[1]) == opened(flat, labeled=False)[1]
    assert list(map(len, parts)) == [4, 1]
    with pytest.raises(UserError, match="no split 'test'"):
        opened(flat, "test", labeled=False)
    mixed = write_images(tmp_path / "mixed", "a/1.png", "2.png", "b/c/3.png")
    os.symlink("nowhere", mixed / "link.png")
    assert opened(mixed)[1] == ["a/1.png", "b/c/3.png"]
    capsys.readouterr()
    assert opened(mixed, labeled=False)[1] == ["2.png", "a/1.png", "b/c/3.png"]
    assert "1 linked to nothing, or no file ('link.png')" in capsys.readouterr().err
    split = write_images(tmp_path / "split", "train/a/1.png", "train/2.png", "val/b/3.png")
    assert opened(split, "val", labeled=False)[1] == ["val/b/3.png"]


def test_flat_folders_are_split_as_ever(folder):
    """Runs of earlier versions go on: sorted names, of which a fixed permutation holds out the first."""
    expected = []
    for name in ("cat", "dog"):
        files = sorted(f"{name}/{file}" for file in os.listdir(folder / name))
        order = np.random.RandomState(0).permutation(len(files))
        expected += [files[i] for i in sorted(order[: round(len(files) * 0.3)])]
    assert opened(folder, "val", val_fraction=0.3)[1] == expected
    whole = [*opened(folder, "train", val_fraction=0.3)[1], *expected]
    assert sorted(whole) == sorted(opened(folder)[1])
    assert len(whole) == 22


def test_images_belong_to_a_class_at_any_depth(tmp_path):
    write_images(
        tmp_path, "bird/a/1.JPG", "bird/a/b/2.png", "bird/3.PNG", "cat/1.png", "cat/new folder/2.png"
    )
    files = ["bird/3.PNG", "bird/a/1.JPG", "bird/a/b/2.png", "cat/1.png", "cat/new folder/2.png"]
    assert opened(tmp_path) == (["bird", "cat"], files)
    assert sorted(pairs(load(f"folder:{tmp_path}", "all", image_size=(8, 8)))) == [
        (0, 0), (1, 0), (2, 0), (3, 1), (4, 1)
    ]  # fmt: skip


def test_empty_hidden_and_system_entries_are_named_and_left_out(tmp_path, capsys):
    write_images(
        tmp_path, "cat/1.png", "dog/1.png", "cat/._1.png", "dog/.ipynb_checkpoints/1.png", "stray.png",
        "__MACOSX/cat/1.png", "cat/@eaDir/1.png", "lost+found/1.png", ".git/1.png",
    )  # fmt: skip
    for name in ("cat/Thumbs.db", "dog/.DS_Store", "Desktop.ini"):
        (tmp_path / name).write_bytes(b"\0")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    for split in ("all", "all"):  # said once
        assert opened(tmp_path, split) == (["cat", "dog"], ["cat/1.png", "dog/1.png"])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Left out of '{tmp_path}': 9 hidden or of a system (")
    assert "1 empty ('empty')" in line
    assert "1 beside the class folders ('stray.png')" in line
    (tmp_path / "empty" / "below" / "notes.txt").write_text("no image")
    with pytest.raises(
        ValueError, match="classes without an image .* 'empty' 1 .1 are text, such as .*notes.txt"
    ):
        opened(tmp_path, "train", val_fraction=0.1)


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", "val"),
        ("Training", "valid"),
        ("TRAIN", "validation"),
        ("train", "Test"),
        ("training", "Val"),
    ],
)
def test_splits_as_other_tools_name_them(tmp_path, train, held_out, capsys):
    write_images(
        tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{held_out}/a/2.png", f"{held_out}/b/2.png",
        "annotations/x/1.png", "readme.png",
    )  # fmt: skip
    (tmp_path / "__MACOSX").mkdir()
    assert opened(tmp_path, "train") == (["a", "b"], [f"{train}/a/1.png", f"{train}/b/1.png"])
    assert opened(tmp_path, "val") == (["a", "b"], [f"{held_out}/a/2.png", f"{held_out}/b/2.png"])
    assert len(opened(tmp_path, "all")[1]) == 4
    assert "2 beside the splits ('annotations', 'readme.png')" in capsys.readouterr().err
    if held_out == "Test":
        assert opened(tmp_path, "test") == opened(tmp_path, "val")
    else:
        with pytest.raises(ValueError, match="no split 'test'. Valid splits: 'train', 'val', 'all'"):
            opened(tmp_path, "test")


def test_three_splits_and_their_classes(tmp_path, capsys):
    files = [f"{split}/{name}/{split}.png" for split in ("train", "val", "test") for name in ("a", "b")]
    write_images(tmp_path, *files)
    assert opened(tmp_path, "test")[1] == ["test/a/test.png", "test/b/test.png"]
    assert opened(tmp_path, "val")[1] == ["val/a/val.png", "val/b/val.png"]
    everything = ["train/a/train.png", "val/a/val.png", "test/a/test.png"]
    everything += ["train/b/train.png", "val/b/val.png", "test/b/test.png"]
    assert opened(tmp_path, "all") == (["a", "b"], everything)
    os.remove(tmp_path / "val/b/val.png")
    assert opened(tmp_path, "val") == (["a", "b"], ["val/a/val.png"])
    assert "without an image that can be read, with their number of files: 'b' 0" in capsys.readouterr().err
    write_images(tmp_path, "val/c/1.png")
    with pytest.raises(ValueError, match="classes that 'train' lacks: 'c'"):
        opened(tmp_path, "val")
    assert opened(tmp_path, "train")[0] == ["a", "b"]
    write_images(tmp_path, "valid/a/1.png")
    with pytest.raises(ValueError, match="several folders for the split 'val': 'val', 'valid'"):
        opened(tmp_path, "train")


def test_class_names_in_another_normal_form_are_told_apart(tmp_path):
    write_images(tmp_path, "train/caf\u00e9/1.png", "train/b/1.png", "val/cafe\u0301/1.png", "val/b/1.png")
    with pytest.raises(ValueError, match="another Unicode normal form"):
        opened(tmp_path, "val")


@pytest.mark.parametrize("others", [["car", "bus"], ["car", "val"], ["test", "val"]])
def test_a_class_may_be_called_train(tmp_path, others):
    classes = sorted(["train", *others])
    write_images(tmp_path, *(f"{name}/{i}.png" for name in classes for i in range(2)))
    assert opened(tmp_path)[0] == classes


def test_a_class_called_train_may_be_deep(tmp_path):
    write_images(tmp_path, "train/steam/1.png", "train/diesel/1.png", "car/1.png", "bus/1.png")
    assert opened(tmp_path)[0] == ["bus", "car", "train"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["1.png", "2.png"], "has no folders but 2 files: one for each class was expected"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "val' has no folders but 1 file:"),
        (["train/a/1.png", "train/b/1.png"], "no class folders but 'train' .*give 'folder:.*/train'"),
        (["test/a/1.png", "val/a/1.png"], "no class folders but 'test', 'val' with folders inside"),
        (["flowers/rose/1.png", "flowers/tulip/1.png"], "but 'flowers' .*give 'folder:.*/flowers'"),
    ],
)
def test_folders_that_are_no_class_folders(tmp_path, files, words):
    with pytest.raises(ValueError, match=words):
        opened(write_images(tmp_path, *files), "val")


def test_links_are_followed_once_and_cycles_end(tmp_path, capsys):
    elsewhere = write_images(tmp_path / "elsewhere", "1.png", "more/2.png")
    root = write_images(tmp_path / "root", "cat/1.png", "dog/1.png")
    os.symlink(elsewhere, root / "cat" / "linked")
    os.symlink(elsewhere / "1.png", root / "dog" / "2.png")
    os.symlink(root, root / "cat" / "up")
    os.symlink(root / "dog", root / "cat" / "other")
    os.symlink("nowhere", root / "dog" / "gone.png")
    os.symlink("self.png", root / "dog" / "self.png")
    os.symlink("self", root / "self")
    os.mkfifo(root / "dog" / "pipe.png")
    assert opened(root) == (
        ["cat", "dog"],
        ["cat/1.png", "cat/linked/1.png", "cat/linked/more/2.png", "dog/1.png", "dog/2.png"],
    )
    said = capsys.readouterr().err
    assert "2 linked to a folder that is read anyway (" in said
    assert "3 linked to nothing, or no file (" in said
    assert "1 beside the class folders ('self')" in said
    os.symlink(root / "cat", root / "kitten")
    with pytest.raises(ValueError, match="'cat' and 'kitten' are the same folder"):
        opened(root)


def test_file_names_that_are_not_utf8(tmp_path):
    write_images(tmp_path, "a/1.png", "b/1.png")
    os.rename(tmp_path / "a/1.png", os.fsencode(tmp_path / "a") + b"/\xff\x1b[31m.png")
    data = load(f"folder:{tmp_path}", "all", image_size=(8, 8))
    assert sorted(pairs(data)) == [(0, 0), (1, 1)]
    source = open_source(f"folder:{tmp_path}", "all")
    assert source.name_of(0) == f"{tmp_path}/a/\\udcff\\x1b[31m.png"
    assert source.identity.counts == (1, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"a\nb", "'a\\\\nb' has a control character"),
        (b"\x1b[31mred", "x1b"),
        (b"a\tb", "control"),
        ("a\x85b".encode(), "control"),
        ("a\u2028b".encode(), "control"),
        ("a\u202eb".encode(), "control"),
        (b"\xffa", "not UTF-8"),
        (b" ", "blank"),
        (b"b ", "look the same: 'b' and 'b '"),
    ],
)
def test_class_names_that_files_or_terminals_cannot_hold(tmp_path, name, words):
    write_images(tmp_path, "b/1.png", "c/1.png")
    os.rename(os.fsencode(tmp_path / "c"), os.fsencode(tmp_path) + b"/" + name)
    with pytest.raises(ValueError, match=words):
        opened(tmp_path)


def test_class_names_of_all_scripts(tmp_path):
    names = ["a b", "caf\u00e9", "\u732b", "\U0001f469\u200d\U0001f52c", "\u05e9\u05dc\u05d5\u05dd"]
    write_images(tmp_path, *(f"{name}/1.png" for name in names))
    assert opened(tmp_path)[0] == sorted(names)


def fill(path, kind):
    path.write_bytes(
        {
            "text": b"no image",
            "empty": b"",
            "heic": b"\0\0\0\x18ftypheic" + bytes(40),
            "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "cut": path.read_bytes()[:-30],
        }[kind]
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "4 are text, such as '.*/a/1.png'"),
        ("empty", "4 are empty"),
        ("heic", "4 have the unsupported format HEIC"),
        ("lfs", "4 are pointers of Git LFS"),
        ("cut", r"4 failed to decode \(damaged PNG\)"),
    ],
)
def test_the_reason_that_no_image_can_be_read_is_true(tmp_path, kind, words):
    write_images(tmp_path, "a/1.png", "a/2.png", "a/3.png", "b/1.png")
    for path in tmp_path.rglob("*.png"):
        fill(path, kind)
    with pytest.raises(ValueError, match=f"none of 4 images can be read .{words}.*by class: 'a' 3, 'b' 1"):
        opened(tmp_path)


def test_a_class_without_readable_images_is_an_error_in_training_only(tmp_path, capsys):
    write_images(tmp_path, *(f"{name}/{i}.png" for name in "abc" for i in range(5)))
    for path in (tmp_path / "b").iterdir():
        fill(path, "cut")
    with pytest.raises(ValueError, match=r"'b' 4 .4 failed to decode \(damaged PNG\), such as '.*/b/"):
        opened(tmp_path, "train")
    assert len(opened(tmp_path, "val")[1]) == 3
    assert (
        "classes without an image that can be read, with their number of files: 'b' 1"
        in capsys.readouterr().err
    )


def test_a_share_that_leaves_nothing_is_an_error(tmp_path):
    write_images(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(
        ValueError, match="no files for the split 'val'; `val_fraction` is 0.2, of each class"
    ):
        opened(tmp_path, "val")


def test_classes_that_hold_folders_alone_are_named(tmp_path, capsys):
    for name in ("cats", "dogs"):
        write_images(tmp_path, f"{name}/inside/0.png")
    assert open_source(f"folder:{tmp_path}", "all").class_names == ("cats", "dogs")
    assert "all classes ('cats', 'dogs') lie in deeper folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    "splits",
    [("test_set", "training_set"), ("dev", "train"), ("training_set", "validation"), ("train_images",)],
)
@pytest.mark.parametrize("below", ["", "again/"])  # as `unzip` leaves Kaggle's datasets
def test_splits_under_other_names_are_no_classes(tmp_path, splits, below):
    for split in splits:
        write_images(tmp_path, *(f"{split}/{below}{name}/0.png" for name in ("cats", "dogs")))
    with pytest.raises(
        UserError, match=f"no class folders but '{splits[0]}'.*give 'folder:.*{splits[0]}', or"
    ):
        opened(tmp_path)
