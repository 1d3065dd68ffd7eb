"""Class names: files of them, and networks' beside datasets'."""

import re
import unicodedata
import zipfile

import keras
import numpy as np
import pytest

from kvision import labels
from kvision.errors import NoLabels, UserError

NUMBERED = labels.numbers(3)
ELEVEN = tuple(sorted(map(str, range(11))))  # 0, 1, 10, 2, ... as folders are sorted


@pytest.mark.parametrize(
    ("names", "data_names", "named", "places", "words"),
    [
        (("cat", "dog"), ("cat", "dog"), True, [0, 1], ""),
        (("cat", "dog"), ("dog", "cat"), True, [1, 0], ""),
        (("cat", "dog"), ("Dog", "cat"), True, [1, 0], ""),
        (("Cat", "cat"), ("cat", "Cat"), True, [1, 0], ""),
        (("cat", "dog", "eel"), ("eel", "cat"), True, [2, 0], "lacks 1 of the network's 3 classes: 'dog'"),
        ((unicodedata.normalize("NFD", "Käse"), "a"), ("a", "Käse"), True, [1, 0], ""),
        (labels.imagenet(), ("n01443537", "n01440764"), True, [1, 0], "lacks 998"),  # goldfish, tench
        (("tench", "goldfish"), ("n01440764", "n01443537"), True, [0, 1], ""),
        (("0", "1", "2"), ("2", "0"), True, [2, 0], "lacks"),
        (ELEVEN, labels.numbers(11), True, [ELEVEN.index(str(i)) for i in range(11)], ""),
        (NUMBERED, ("cat", "dog", "eel"), False, [0, 1, 2], "position.* network are.*: output 0 is 'cat', "),
        (("cat", "dog", "eel"), NUMBERED, True, [0, 1, 2], "position.* data are.*: output 0 .'cat'. is '0'"),
        (NUMBERED, NUMBERED, False, [0, 1, 2], ""),
        (NUMBERED, ("7", "8", "11"), False, [0, 1, 2], "position.* 0 is '7', .* 1 is '8', .* 2 is '11'"),
    ],
)  # fmt: skip
def test_classes_are_matched_by_name(names, data_names, named, places, words):
    found, remark = labels.match(names, data_names, named=named)
    assert found == places
    assert bool(remark) == bool(words)
    assert re.search(words, remark)


@pytest.mark.parametrize(
    ("names", "data_names", "named", "words"),
    [
        (("cat", "dog"), ("canine", "feline"), True, "'canine', 'feline'.*'cat', 'dog'.*--labels"),
        (
            ("cat", "dog"),
            ("Cat", "cat", "dog"),
            True,
            "or that mean the same: 'Cat', 'cat'. Data: 'Cat', 'cat', 'd",
        ),
        (("cat", "dog"), ("bird", "cat", "dog"), True, "lacks, or that mean the same: 'bird'"),
        (("cat", "dog"), ("Cat", "cat"), True, "'Cat', 'cat'"),
        (("Cat", "cat"), ("CAT", "dog"), True, "'CAT', 'dog'"),
        (labels.numbers(10), tuple(map(str, range(1, 11))), True, "'10'.*--labels=numbers"),
        (("cat", "dog"), labels.numbers(3), True, "3 classes .'0', '1', '2'., the network has 2"),
        (NUMBERED, ("cat", "dog"), False, "2 classes"),
        (labels.numbers(11), ELEVEN, False, "another order than that of their values: '0', '1', '10'.*=FILE"),
        (tuple(map(str, range(9))), (*map(str, range(8)), "x\x1b[2J" * 99), True, r"^.{,700}$"),
    ],
)
def test_other_classes_are_refused(names, data_names, named, words):
    with pytest.raises(UserError, match=words) as error:
        labels.match(names, data_names, named=named)
    assert "\x1b" not in str(error.value)


def test_where_some_names_meet_the_data_is_not_taken_for_unlabelled():
    for data_names, kind in ((("red", "rod"), UserError), (("black", "white"), NoLabels)):
        with pytest.raises(UserError) as error:
            labels.match(("red", "green"), data_names, named=True)
        assert type(error.value) is kind


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\r\ndog", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\ndog\n\n", ("cat", "dog")),
        ("Käse\u00a0alt\n👩\u200d🍳\n".encode(), ("Käse\u00a0alt", "👩\u200d🍳")),
        (b"cat\n\ndog\n", "a class whose name is blank"),
        (b"", "a class whose name is blank"),
        (b"cat\x0bdog\n", "control character"),
        (b"cat\x1b[31m\n", r"'cat\\x1b.*' has a control character"),
        ("cat\u2028dog".encode(), "control character"),
        ("a\u202eb".encode(), "control character"),
        (b"\xff\xfec\0a\0t\0", "not UTF-8"),
    ],
)
def test_files_of_names(content, expected, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    if isinstance(expected, tuple):
        assert labels.read(tmp_path / "labels.txt") == expected
    else:
        with pytest.raises(UserError, match=expected):
            labels.read(tmp_path / "labels.txt")


def test_folders_that_wordnet_numbers_are_imagenets_classes():
    """Two of ImageNet's names, of a dog and of a jacket, differ in their case alone."""
    synsets = tuple(labels.read(labels.ASSETS / "imagenet_synsets.txt"))
    assert labels.match(labels.imagenet(), synsets, named=True) == ([*range(1000)], "")
    places, _ = labels.match(labels.imagenet(), ("n02113186", "n02963159"), named=True)
    assert [labels.imagenet()[place] for place in places] == ["Cardigan", "cardigan"]


def test_names_travel_in_a_keras_file(tmp_path):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.save(path)
    assert labels.read_from_keras(path) is None
    labels.add_to_keras(path, ("Käse", "dog"))
    assert labels.read_from_keras(path) == ("Käse", "dog")
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(again(np.ones((1, 2))), model(np.ones((1, 2))))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(labels.MEMBER, "a\x1b\nb\n")
    with pytest.raises(UserError, match="control character"):
        labels.read_from_keras(path)
    path.write_bytes(path.read_bytes().replace(b"a\x1b\nb", b"a_\nb"))
    with pytest.raises(UserError, match="Failed to read .*: Bad CRC-32"):
        labels.read_from_keras(path)


SORTED_NUMBERS = sorted(map(str, range(12)))  # as folders are listed


@pytest.mark.parametrize(
    ("names", "data_names", "places", "words"),
    [
        ("abcdefghijkl", SORTED_NUMBERS, [0, 1, 10, 11, *range(2, 10)], "output 2 ('c') is '2' and 7 more."),
        (SORTED_NUMBERS, "abcdefghijkl", [0, 1, *range(4, 12), 2, 3], "output 6 is 'e' and 7 more."),
        ("abc", "123", [0, 1, 2], "output 0 ('a') is '1', output 1 ('b') is '2'"),
    ],
)
def test_numbers_have_the_order_of_their_values(names, data_names, places, words):
    found, sentence = labels.match(tuple(names), tuple(data_names), named=True)
    assert found == places
    assert words in sentence


@pytest.mark.parametrize(("names", "data_names"), [("abc", ("1", "10", "2")), (("1", "10", "2"), "abc")])
def test_numbers_with_gaps_are_no_positions_among_names(names, data_names):
    with pytest.raises(UserError, match="must be consecutive .* got '1', '10', '2'"):
        labels.match(tuple(names), tuple(data_names), named=True)


def test_a_name_that_a_network_has_twice_is_pointed_out():
    with pytest.raises(UserError, match="The network has the class 'red' more than once, in 'red', 'red'"):
        labels.match(("red", "red", "blue"), ("blue", "green", "red"), named=True)
    twice = ("crane", "maillot", "crane")
    assert labels.match(twice, ("maillot",), named=True)[0] == [1]  # as ImageNet's


def test_a_file_that_has_a_name_twice_is_pointed_out(tmp_path, caplog):
    (tmp_path / "labels.txt").write_text("crane\nmaillot\ncrane\n")
    assert labels.named(f"{tmp_path}/labels.txt") == ("crane", "maillot", "crane")
    assert caplog.messages == [f"'{tmp_path}/labels.txt' has names more than once: 'crane'."]
