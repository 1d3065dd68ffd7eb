"""VOC's annotations: what is read of them, and what may be wrong."""

import pytest
from box_files import BOXES, SIZE, check, check_list, write_images
from PIL import Image

from kvision.data import load
from kvision.data.sources import open_source
from kvision.data.sources.voc import CLASSES
from kvision.errors import UserError


def voc_xml(name, boxes, size=SIZE):
    objects = "".join(
        f"<object><name>{label}</name><difficult>{int(crowd)}</difficult><bndbox><xmin>{box[0] + 1}</xmin>"
        f"<ymin>{box[1] + 1}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box, label, crowd in boxes
    )
    size = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


@pytest.fixture
def voc(tmp_path):
    write_images(tmp_path / "JPEGImages")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for name, boxes in zip("abcd", BOXES, strict=True):
        (tmp_path / f"Annotations/{name}.xml").write_text(voc_xml(name, boxes))
    for split, names in (("train", "abc"), ("val", "d")):
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
    return tmp_path


def test_voc(voc, capsys):
    check(f"voc:{voc}", classes=CLASSES[1:])
    check_list(f"voc:{voc}", "val", "d", classes=CLASSES[1:])
    (voc / "classes.txt").write_text("dog\ncat\ncow\n")
    check_list(f"voc:{voc}", "train", "abc", classes=("dog", "cat", "cow"))
    (voc / "classes.txt").write_text("dog\ncat\n")
    load(f"voc:{voc}", "all", image_size=SIZE, target="boxes")
    assert "Left out 1 box: 1 of an unknown class (first 'cow' in " in capsys.readouterr().err
    with pytest.raises(UserError, match="'cow' in .* `strict` asks for boxes without a fault"):
        load(f"voc:{voc}", "all", image_size=SIZE, target="boxes", strict=True)


def test_vocs_images_may_have_another_ending(voc):
    for path in (voc / "JPEGImages").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    assert open_source(f"voc:{voc}", "train", target="boxes").size == 3


BOMB = '<!DOCTYPE a [<!ENTITY b "bb">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no '.*d.xml', the annotation of an image that is listed"),
        ("<annotation>", "d.xml' is not XML: "),
        (BOMB, "d.xml' declares a document type"),
        ("<annotation/>", "d.xml' is not an annotation of VOC: a 'size' with"),
        (voc_xml("d", BOXES[3], (0, 0)), "d.xml' is not an annotation of VOC: a 'size' with .* above 0"),
        (voc_xml("d", BOXES[3]).replace("xmin", "left"), "in each .* 'bndbox' with the numbers 'xmin'"),
        (voc_xml("d", BOXES[3]).replace("<difficult>0", "<difficult>no"), "given a 'difficult' of 0 or 1"),
        (voc_xml("d", [((1, 2, 3, 4), "hat", False)]), "classes 'hat', and none of .*: name all .*classes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_voc(voc, content, message):
    (voc / "Annotations/d.xml").unlink()
    if content:
        (voc / "Annotations/d.xml").write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(f"voc:{voc}", "val", target="boxes")
