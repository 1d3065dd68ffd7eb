"""Lists of boxes as YOLO's trainers take them: what is read of them, and what may be wrong."""

import numpy as np
import pytest
from box_files import BOXES, SIZE, check, check_list, shares, write_images
from masks import read

from kvision.data import load
from kvision.data.sources import open_source
from kvision.errors import UserError

NAMES = "names:\n  0: cat\n  1: cow\n  2: dog\n"


@pytest.fixture
def yolo(tmp_path):
    for split, names in (("train", "abc"), ("val", "d")):
        write_images(tmp_path / "images" / split, names)
        (tmp_path / "labels" / split).mkdir(parents=True)
        for name in names:
            lines = []
            for box, label, _ in BOXES["abcd".index(name)]:
                left, top, right, bottom = shares(box)
                place = ("cat", "cow", "dog").index(label)
                lines.append(
                    f"{place} {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n"
                )
            if lines:
                (tmp_path / "labels" / split / f"{name}.txt").write_text("".join(lines))
    (tmp_path / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val # four\ntest:\n{NAMES}"
    )
    return tmp_path


def test_yolo(yolo):
    data = f"yolo:{yolo}/data.yaml"
    check(data, crowds=False)
    check_list(data, "val", "d")
    listing = "\n".join(f".\\images\\train\\{name}.jpg" for name in "ca")  # as Windows writes them
    (yolo / "list.txt").write_text(listing)
    (yolo / "labels/val/d.txt").write_bytes(b"\xef\xbb\xbf" + (yolo / "labels/val/d.txt").read_bytes())
    names = "names: ['cat', cow, \"dog\"]\nnc: 3\ndownload: |\n  rm nothing\n"
    (yolo / "data.yaml").write_text(f"path: ../elsewhere\ntrain: [list.txt, ..\\images\\val]\n{names}")
    check_list(data, "train", "cad", crowds=False)
    (yolo / "data.yaml").write_text(f"train: images/train\nval: images/train\n{names}")
    assert open_source(data, "all", target="boxes").size == 3
    (yolo / "data.yaml").write_text(f"path: ../elsewhere\ntrain: [list.txt, ..\\images\\val]\n{names}")
    (yolo / "labels/train/a.txt").write_text("2 0.1 0.1 0.3 0.1 0.3 0.5 0.2 0.5\n")
    BOX = ((8, 4, 24, 20), "dog", False)
    [batch] = read(load(data, "train", image_size=SIZE, target="boxes"))
    np.testing.assert_allclose(batch["boxes"][1, 0], BOX[0], atol=1e-4)
    for text in (yolo / "labels").rglob("*.txt"):
        text.write_text("")
    with pytest.raises(UserError, match="None of the 3 images to train on has an object"):
        load(data, "train", image_size=SIZE, target="boxes", training=True)
    (yolo / "labels").rename(yolo / "Labels")
    with pytest.raises(
        UserError, match=r"none of the 3 images of the split 'train' .* is '.*/labels/train/c"
    ):
        load(data, "train", image_size=SIZE, target="boxes")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("data.yaml", "train: [", "data.yaml' is not YAML: while parsing"),
        ("data.yaml", "!!python/object/apply:os.system ['true']", "is not YAML: could not determine"),
        ("data.yaml", "nothing", "must have the keys 'train', 'val' and 'names'; got 'nothing'"),
        ("data.yaml", "val: images/val\nnames: {0: a, 2: b}", "`names` must be a list of classes"),
        ("data.yaml", "val: images/val\nnames: [yes, no]", "marks around YAML's yes, no and null; got"),
        ("data.yaml", "val: images/val\nnames: [a, b]\nnc: 3", "`nc` is 3 and `names` has 2 classes"),
        ("data.yaml", f"val: image/val\n{NAMES}", "`val` is 'image/val', and there is no '.*image/val'"),
        ("data.yaml", NAMES, "has none of 'train', 'val', 'test'"),
        ("labels/val/d.txt", "0 0.5 0.5 0.5\n", "d.txt', line 1: .* and 4 numbers .* got '0 0.5 0.5 0.5'"),
        ("labels/val/d.txt", "0 0.5 0.5 0.5 0,5\n", "d.txt', line 1: a class's number"),
        ("labels/val/d.txt", "7 0.5 0.5 0.5 0.5\n", "None of 1 box .* unknown class .first 7 in '.*d.txt"),
        ("labels/val/d.txt", "0 20 20 9 9\n", "outside of the image .*; shares of the image's sides were"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_yolo(yolo, file, text, message):
    (yolo / file).write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(f"yolo:{yolo}/data.yaml", "val", target="boxes")
