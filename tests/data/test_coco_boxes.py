"""COCO's annotations, also as Roboflow lays them out: what is read of them, and what may be wrong."""

import json

import numpy as np
import pytest
from box_files import BOXES, SIZE, check, check_list, write_images
from masks import read
from PIL import Image

from kvision.data import load
from kvision.data.sources import absolute, open_source
from kvision.errors import UserError


def coco(names="abcd", **changes):
    """The content of a file of annotations."""
    images, annotations = [], []
    for number, name in enumerate(names):
        images.append({"id": 100 - number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for (left, top, right, bottom), label, crowd in BOXES["abcd".index(name)]:
            annotations.insert(0, {
                "image_id": 100 - number, "category_id": {"cat": 3, "cow": 7, "dog": 12}[label],
                "bbox": [left, top, right - left, bottom - top], "iscrowd": int(crowd), "area": 5.5,
            })  # fmt: skip
    annotations.sort(key=lambda annotation: annotation["category_id"] == 3)
    categories = [{"id": 12, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "cow"}]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


IMAGE = coco("d")["images"][0]
ANNOTATION = coco("d")["annotations"][0]


@pytest.fixture
def coco_folder(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split, names in (("train", "abc"), ("val", "d")):
        write_images(tmp_path / f"{split}2017", names)
        file = tmp_path / "annotations" / f"instances_{split}2017.json"
        file.write_text(json.dumps(coco(names)))
    return tmp_path


def test_coco(coco_folder, monkeypatch):
    batch = check(f"coco:{coco_folder}")
    assert set(batch["area"][batch["classes"] >= 0]) == {5.5}
    check(f"coco:{coco_folder}", "train", "abc", cache="ram", letterbox="corner")
    check(f"coco:{coco_folder}", "val", "d", cache="disk")
    pair = f"coco:{coco_folder}/annotations/instances_train2017.json,{coco_folder}/train2017"
    check_list(pair, "all", "abc")
    sizes = [open_source(pair, split, val_fraction=0.34, target="boxes").size for split in ("train", "val")]
    assert sizes == [2, 1]
    monkeypatch.chdir(coco_folder)
    assert absolute("coco:annotations/instances_train2017.json,train2017") == pair
    source = open_source(pair, "train", target="boxes")
    places = [2, 0, 1]
    moved = source.with_classes(("cow", "dog", "cat"), places)
    np.testing.assert_array_equal(moved.objects.classes, np.take(places, source.objects.classes))
    assert open_source(f"coco:{coco_folder}", "all", labeled=False).size == 4


def test_flags_of_crowds_may_be_texts(coco_folder):
    annotations = [annotation | {"iscrowd": "0"} for annotation in coco("d")["annotations"]]
    file = coco_folder / "annotations/instances_val2017.json"
    file.write_text(json.dumps(coco("d", annotations=annotations)))
    assert not open_source(f"coco:{coco_folder}", "val", target="boxes").objects.crowd.any()


def test_a_box_that_is_there_twice_is_told(coco_folder, capsys):
    content = coco("d", annotations=coco("d")["annotations"] * 2)
    (coco_folder / "annotations/instances_val2017.json").write_text(json.dumps(content))
    load(f"coco:{coco_folder}", "val", image_size=SIZE, target="boxes")
    assert "Counted as well: 1 box, equal to another" in capsys.readouterr().err


def test_roboflows_layout_has_annotations_beside_images(tmp_path):
    """Its first category is the others' supercategory, and has no boxes."""
    for folder, names in (("train", "abc"), ("valid", "d")):
        write_images(tmp_path / folder, names)
        content = coco(names)
        categories = [category | {"supercategory": "pets"} for category in content["categories"]]
        content["categories"] = [*categories, {"id": 0, "name": "pets", "supercategory": "none"}]
        (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(content))
    check(f"coco:{tmp_path}", "train", "abc")
    check_list(f"coco:{tmp_path}", "val", "d")


def test_the_identity_covers_boxes(coco_folder):
    first = open_source(f"coco:{coco_folder}", "val", target="boxes").identity
    content = coco("d")
    content["annotations"][0]["bbox"][2] += 1
    (coco_folder / "annotations/instances_val2017.json").write_text(json.dumps(content))
    [change] = first.changes(open_source(f"coco:{coco_folder}", "val", target="boxes").identity)
    assert "other names" in change
    assert not first.changes(first)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "instances_val2017.json' is not JSON: Expecting"),
        ("[" * 100000, "is not JSON"),
        ("[]", "must have the lists 'images', 'annotations', 'categories', .* got list"),
        ({"images": 3}, "must have the lists"),
        (coco("d", categories=[{"id": 1}]), "categories, entry 1: an 'id' and a 'name' were expected; got"),
        (coco("d", images=[{"id": 1, "file_name": "d.jpg"}]), "entry 1: .* a 'height' and a 'width' were"),
        (coco("d", annotations=[{"image_id": 5}]), "annotations, entry 1: an 'image_id' of the images"),
        (coco("d", annotations=[ANNOTATION | {"image_id": 5}]), "got image_id 5, category_id 7, bbox .16"),
        (coco("d", annotations=[ANNOTATION | {"bbox": [0, 0, 0.5, 1]}]), "No box is larger than a pixel"),
        (coco("d", annotations=[ANNOTATION | {"iscrowd": "false"}]), "'iscrowd' of 0 or 1 .*iscrowd 'false'"),
        (coco("d", annotations=[ANNOTATION | {"area": -5}]), "and an 'area' were expected; .*area -5"),
        (coco("d", annotations=[ANNOTATION | {"bbox": "1234"}]), "annotations, entry 1: .*bbox '1234'"),
        (coco("d", annotations=[ANNOTATION | {"category_id": 3.7}]), "entry 1: .*category_id 3.7"),
        (coco("d", categories=[{"id": 1, "name": None}]), "categories, entry 1: an 'id' and a 'name'"),
        (coco("d", images=[IMAGE | {"id": [1]}]), "images, entry 1: an 'id', a 'file_name'"),
        (coco("d", images=[IMAGE | {"file_name": "."}]), "image 1: a path of a file was expected; got '.'"),
        (coco("d", images=[IMAGE, IMAGE | {"id": 99}]), "lists '.*d.jpg' as several images"),
        (coco("d", images=coco("d")["images"] * 2), "has several images with the same id"),
        (coco("d", images=[IMAGE | {"file_name": "x.jpg"}]), "1 of the 1 images .* not there; .*x.jpg"),
        (coco("d", images=[IMAGE | {"file_name": "../d.jpg"}]), "image 1: a path below the folder"),
        (coco("d", categories=coco()["categories"][:2]), "None of 1 box .*: 1 of an unknown class .first 7"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_coco(coco_folder, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    (coco_folder / "annotations/instances_val2017.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(f"coco:{coco_folder}", "val", target="boxes")


def test_images_of_another_size_than_their_boxes_end_the_reading(coco_folder):
    Image.new("RGB", SIZE).save(coco_folder / "val2017/d.jpg")
    data = load(f"coco:{coco_folder}", "val", image_size=SIZE, target="boxes")
    with pytest.raises(UserError, match="d.jpg' has 40 x 80 pixels, .* for 80 x 40; --noexif reads an image"):
        read(data)


def test_unreadable_images_are_skipped_in_mosaics_too(coco_folder):
    (coco_folder / "train2017/b.jpg").write_bytes(b"\xff\xd8\xff damaged")
    how = {"image_size": SIZE, "target": "boxes", "training": True, "max_unreadable": 0.5, "batch_size": 2}
    data = load(f"coco:{coco_folder}", "train", augment="mosaic", **how)
    batches = read(data, 6)
    assert len(batches) == 6
    assert [name[-5:] for name in data.unreadable] == ["b.jpg"]
    assert batches[0]["boxes"].shape == (2, 8, 4)
    with pytest.raises(UserError, match="`augment` 'mosaic' needs boxes; got the target 'mask'"):
        load("shapes", "train", image_size=SIZE, target="mask", augment="mosaic")
