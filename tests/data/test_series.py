"""Series of a CSV file: windows and what follows, whole sequences with labels, and what is held out."""

import csv

import numpy as np
import pytest
from masks import read

from kvision.data import load
from kvision.data.sources import open_source
from kvision.errors import UserError

NAN = np.nan


def write(path, header, *rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return f"series:{path}"


@pytest.fixture
def one(tmp_path):
    """A series of ten rows, of which the last two are held out."""
    return write(tmp_path / "one.csv", ["t", "day", "y"], *([i, f"day {i}", 100 + i] for i in range(10)))


@pytest.fixture
def labeled(tmp_path):
    """Ten sequences of two labels, of 1 to 5 rows each, whose rows are mixed."""
    rows = [
        (place, [f"s{number}", "odd" if number % 2 else "even", number, place])
        for number in range(10)
        for place in range(1 + number % 5)
    ]
    return write(tmp_path / "labeled.csv", ["sequence", "label", "x", "y"], *(row for _, row in sorted(rows)))


def together(data):
    batches = read(data)
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def test_the_last_rows_are_held_out(one, capsys):
    """By hand: windows of validation look back into the training, and predict rows 8 and 9 alone."""
    train, val, whole = (load(one, split, length=3, target="next") for split in ("train", "val", "all"))
    assert "columns without numbers are no features: 'day'." in capsys.readouterr().err
    assert [data.size for data in (train, val, whole)] == [5, 2, 7]
    assert train.class_names == ("t", "y")
    batch = together(train)
    assert batch.keys() == {"series", "next", "future", "weight"}
    assert all(part.dtype == np.float32 for part in batch.values())
    assert batch["series"][:, :, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]]
    assert batch["next"].tolist() == [[3, 103], [4, 104], [5, 105], [6, 106], [7, 107]]
    batch = together(load(one, "val", length=3, horizon=3, target="next"))
    assert batch["series"][:, :, 1].tolist() == [[105, 106, 107], [106, 107, 108]]
    assert batch["next"][:, 0].tolist() == [8, 9]
    np.testing.assert_array_equal(batch["future"][:, :, 0], [[8, 9, NAN], [9, NAN, NAN]])
    source = open_source(one, "val", target="next")
    np.testing.assert_allclose(source.mean, [3.5, 103.5])
    np.testing.assert_allclose(source.std, np.std([np.arange(8)] * 2, axis=1), rtol=1e-6)
    batch = next(load(one, "train", length=3, target="next", training=True).dataset.as_numpy_iterator())
    assert batch.keys() == {"series", "next", "weight"}


def test_series_of_a_file_stay_apart(tmp_path):
    rows = [[name, place, 7] for place in range(5) for name in "ba"] + [["b", 5, 7]]
    data = write(tmp_path / "two.csv", ["sequence", "x", "always"], *rows)
    batch = together(load(data, "train", length=2, val_fraction=0.4, target="next"))
    assert batch["series"][:, :, 0].tolist() == [[0, 1], [1, 2], [0, 1]]  # of 4 rows of b, and of 3 of a
    assert batch["next"][:, 0].tolist() == [2, 3, 2]
    batch = together(load(data, "val", length=2, val_fraction=0.4, horizon=2, target="next"))
    np.testing.assert_array_equal(batch["future"][:, :, 0], [[4, 5], [5, NAN], [3, 4], [4, NAN]])
    assert open_source(data, "train", target="next").std.tolist()[1] == 1
    rows = [
        [of_set, place] for place, of_set in enumerate(["train"] * 4 + ["val"] * 2 + ["train"] * 3 + ["test"])
    ]
    data = write(tmp_path / "sets.csv", ["set", "x"], *rows)
    nexts = {
        split: together(load(data, split, length=2, target="next"))["next"]
        for split in ("train", "val", "test", "all")
    }
    # no window of the training has a row of another set
    assert {split: part[:, 0].tolist() for split, part in nexts.items()} == {
        "train": [2, 3, 8], "val": [4, 5], "test": [9], "all": [*range(2, 10)]
    }  # fmt: skip
    np.testing.assert_allclose(open_source(data, "test", target="next").mean, np.mean([0, 1, 2, 3, 6, 7, 8]))


def test_whole_sequences_are_held_out(labeled):
    splits = {split: open_source(labeled, split, target="sequence") for split in ("train", "val", "all")}
    assert [source.size for source in splits.values()] == [8, 2, 10]
    assert np.bincount(splits["val"].labels).tolist() == [1, 1]  # of each label a share
    assert splits["val"].class_names == ("even", "odd")
    seen = {
        split: together(load(source, split, length=4, target="sequence")) for split, source in splits.items()
    }
    numbers = {split: batch["series"][:, 0, 0].astype(int).tolist() for split, batch in seen.items()}
    assert sorted(numbers["train"] + numbers["val"]) == sorted(numbers["all"]) == [*range(10)]
    batch = seen["all"]
    assert batch["series"].shape == (10, 4, 2)
    assert batch["label"].dtype == np.int64
    for number, series, label in zip(numbers["all"], batch["series"], batch["label"], strict=True):
        size = 1 + number % 5
        expected = np.zeros((5, 2))
        expected[:size] = np.column_stack([np.full(size, number), np.arange(size)])
        np.testing.assert_array_equal(series, expected[:4])
        assert label == number % 2
    values = [[n, place] for n in numbers["train"] for place in range(1 + n % 5)]
    np.testing.assert_allclose(splits["val"].mean, np.mean(values, 0), rtol=1e-6)
    np.testing.assert_allclose(splits["val"].std, np.std(values, 0), rtol=1e-6)
    moved = splits["all"].with_classes(("odd", "other", "even"), (2, 0))
    assert moved.labels.tolist() == [2 - 2 * label for label in batch["label"]]
    unlabeled = open_source(labeled, "all", labeled=False, target="sequence")
    assert unlabeled.labels.tolist() == [0] * 10


@pytest.mark.parametrize("target", ["next", "sequence"])
def test_batches_follow_from_seed_and_position(one, labeled, target):
    def batches(count, start=0, shard=(0, 1), size=3):
        how = {"length": 3, "training": True, "seed": 3, "target": target}
        data = load(
            one if target == "next" else labeled, "train", batch_size=size, start=start, shard=shard, **how
        )
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(count), strict=False)]

    whole = batches(6)
    for got, expected in zip(batches(2, start=12), whole[4:], strict=True):
        for name, part in expected.items():
            np.testing.assert_array_equal(got[name], part)
    for index in range(3):
        for got, expected in zip(batches(6, shard=(index, 3), size=1), whole, strict=True):
            np.testing.assert_array_equal(got["series"][0], expected["series"][index])


def test_a_networks_features(one):
    source = open_source(one, "val", target="next")
    moved = source.with_classes(("y", "t"), (1, 0))
    batch = together(load(moved, "val", length=2, target="next"))
    assert batch["next"].tolist() == [[108, 8], [109, 9]]
    np.testing.assert_array_equal(moved.mean, source.mean[::-1])
    with pytest.raises(UserError, match="The series lack 1 column of the network: 'z'."):
        source.with_classes(("t", "z", "y"), (0, 2))


def test_values_that_change_are_noticed(one, tmp_path):
    def identities():
        return {split: open_source(one, split, target="next").identity for split in ("train", "val")}

    before = identities()
    assert before == identities()
    path = tmp_path / "one.csv"
    path.write_text(path.read_text().replace("109", "110"))
    assert before["val"].changes(identities()["val"])
    assert before["train"] == identities()["train"]  # which neither predicts nor sees it
    path.write_text(path.read_text().replace("day 9,110", "day 9,109\n10,day 10,110"))
    [change] = before["train"].changes(identities()["train"])
    assert before["train"].divided
    assert change == "there are 9 images instead of 8"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "next", "x.csv' has no rows behind a header"),
        ("x,y\n", "next", "x.csv' has no rows behind a header"),
        ("x,y\n1,2\n3,four\n", "next", "x.csv', row 3: a number was expected in the column 'y'; got 'four'."),
        ("x,y\n1,2\n3,nan\n", "next", "x.csv', row 3: a number was expected in the column 'y'; got 'nan'."),
        ("x,y\n1,2\n3,\n", "next", "x.csv', row 3: a number was expected in the column 'y'; got ''."),
        ("x\n1\n1e99\n", "next", "x.csv', row 3: a number was expected in the column 'x'; got '1e99'."),
        ("x,y\n1,2\n3\n", "next", "x.csv', row 3: 2 fields were expected, as in the header; got 1: .*3"),
        ("x,x\n1,2\n", "next", "x.csv', row 1: a header with a name for each column, each once"),
        ("x,\n1,2\n", "next", "x.csv', row 1: a header with a name for each column, each once"),
        ("x,set\n1,dev\n", "next", "x.csv', row 2: the set must be train, val or test; got 'dev'."),
        ("day\nMonday\n", "next", "x.csv' has no column of numbers beside 'sequence', .*; got 'day'"),
        ("x\n1\n2\n3\n", "next", "x.csv', row 2: 4 rows or more were expected, .* and the next; got 3."),
        (
            "sequence,x\na,1\na,1\na,1\na,1\na,1\nb,1\nb,2\n",
            "next",
            "x.csv', row 7: 4 rows or more were expected, for a `length` of 3 and the next; got 2.",
        ),
        ("x\n1\n2\n3\n4\n", "next", "x.csv', row 2: no row of the split has 3 rows before it"),
        ("sequence,x\n,1\n", "next", "x.csv', row 2: the column 'sequence' is empty."),
        ("x,y\n1,2\n", "sequence", "x.csv' must have the column 'label'; its columns are 'x', 'y'."),
        ("x,label\n1,a\n", "sequence", "x.csv' must have the column 'sequence', whose rows"),
        (
            "sequence,x,label\na,1,b\na,2,c\n",
            "sequence",
            "x.csv', row 3: the sequence 'a' has the label 'c' and, in row 2, 'b'.",
        ),
        (
            "sequence,x,label,set\na,1,b,val\na,2,b,train\n",
            "sequence",
            "x.csv', row 3: the sequence 'a' has the set 'train' and, in row 2, 'val'.",
        ),
    ],
)  # fmt: skip
def test_files_that_are_wrong(tmp_path, text, target, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(f"series:{tmp_path}/x.csv", "train", length=3, val_fraction=0.25, target=target)


def test_arguments_that_are_wrong(one):
    with pytest.raises(UserError, match="`length` of 'next' must be a number of rows, 1 or more; got None."):
        load(one, "train", target="next")
    with pytest.raises(UserError, match="`horizon` must be 1 or more; got 0."):
        load(one, "train", target="next", length=2, horizon=0)
    with pytest.raises(UserError, match="`augment` of 'next' must be 'none'; got 'flip'."):
        load(one, "train", target="next", length=2, augment="flip")
    with pytest.raises(UserError, match="no split 'test' of its own"):
        load(one, "test", target="next", length=2)
    with pytest.raises(UserError, match="The file is missing in 'series': series:FILE.csv was expected."):
        open_source("series", "train", target="next")
    with pytest.raises(UserError, match="gives series and no labels: digits"):
        open_source(one, "train")
    with pytest.raises(
        UserError, match="'csv:x.csv' gives labels and no series: series:FILE.csv was expected"
    ):
        open_source("csv:x.csv", "train", target="next")
    with pytest.raises(UserError, match="'shapes' gives masks and no series"):
        open_source("shapes", "train", target="next")
    with pytest.raises(UserError, match="opened for another target; `open_source` with 'clip' was expected"):
        load(open_source(one, "train", target="next"), "train", target="clip", length=2, image_size=(8, 8))
    with pytest.raises(FileNotFoundError):
        open_source("series:/nowhere.csv", "train", target="next")
