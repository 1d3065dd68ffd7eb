"""Class names in files."""

import pytest

from kvision import labels


def test_only_line_feeds_part_names(tmp_path):
    path = tmp_path / "labels.txt"
    names = ["\u00e9cureuil", "line\u2028separator", "form\x0cfeed", "", "last"]
    for end, newline in (("", "\n"), ("\n", "\r\n")):
        path.write_text("\n".join(names) + end, encoding="utf-8-sig", newline=newline)
        assert labels.read(path) == names
    path.write_text("")
    assert labels.read(path) == []
    path.write_bytes("\u00e9cureuil".encode("latin-1"))
    with pytest.raises(ValueError, match="must be a text file in UTF-8"):
        labels.read(path)


def test_imagenet_has_its_thousand():
    assert len(labels.imagenet()) == 1000
    assert (labels.imagenet()[0], labels.imagenet()[999]) == ("tench", "toilet tissue")
