"""Datasets with boxes: what is read of each, and what is said of files that are not as they should be."""

import json

import numpy as np
import pytest
from masks import read
from PIL import Image

from kvision.data import load
from kvision.data.sources import absolute, open_source
from kvision.data.sources.voc import CLASSES
from kvision.errors import NoLabels, UserError

SIZE = (40, 80)  # height and width
BOXES = [  # of the images a, b, c and d: xyxy in pixels, a class and whether it is ignored
    [((8, 4, 24, 20), "dog", False), ((40, 10, 80, 40), "cat", True)],
    [],
    [((0, 0, 80, 40), "cat", False)],
    [((16, 8, 32, 12), "cow", False)],
]


def write_images(folder, names="abcd", ending="jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE[::-1], (90, 90, 90)).save(folder / f"{name}.{ending}")


def check(data, split="all", order="abcd", classes=("cat", "cow", "dog"), crowds=True, **keywords):
    """Reads a split, whose images are those of `order`, and compares their boxes."""
    how = {"image_size": SIZE, "target": "boxes", "own_size": True, "batch_size": 8, **keywords}
    opened = load(data, split, **how)
    assert opened.class_names == tuple(classes)
    [batch] = read(opened)
    seen = [
        [
            (tuple(box), classes[label], bool(crowd))
            for box, label, crowd in zip(*of_image, strict=True)
            if label >= 0
        ]
        for of_image in zip(batch["boxes"].round(3).tolist(), batch["classes"], batch["crowd"], strict=True)
    ]
    expected = [BOXES["abcd".index(name)] for name in order]
    assert seen == [
        [(box, label, crowd and crowds) for box, label, crowd in of_image] for of_image in expected
    ]
    return batch


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
    check(pair, order="abc")
    sizes = [open_source(pair, split, val_fraction=0.34, target="boxes").size for split in ("train", "val")]
    assert sizes == [2, 1]
    monkeypatch.chdir(coco_folder)
    assert absolute("coco:annotations/instances_train2017.json,train2017") == pair
    source = open_source(pair, "train", target="boxes")
    places = [2, 0, 1]
    moved = source.with_classes(("cow", "dog", "cat"), places)
    np.testing.assert_array_equal(moved.objects.classes, np.take(places, source.objects.classes))
    assert open_source(f"coco:{coco_folder}", "all", labeled=False).size == 4


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
    check(f"coco:{tmp_path}", "val", "d")


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
        (coco("d", annotations=[ANNOTATION | {"image_id": 5}]), "got {'bbox': .*_id': ., 'image_id': 5}"),
        (coco("d", annotations=[ANNOTATION | {"bbox": [0, 0, 0.5, 1]}]), "No box is larger than a pixel"),
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
    check(f"voc:{voc}", "val", "d", classes=CLASSES[1:])
    (voc / "classes.txt").write_text("dog\ncat\ncow\n")
    check(f"voc:{voc}", "train", "abc", classes=("dog", "cat", "cow"))
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
        (voc_xml("d", [((1, 2, 3, 4), "hat", False)]), "classes 'hat', and none of .*: name all .*classes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_voc(voc, content, message):
    (voc / "Annotations/d.xml").unlink()
    if content:
        (voc / "Annotations/d.xml").write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(f"voc:{voc}", "val", target="boxes")


NAMES = "names:\n  0: cat\n  1: cow\n  2: dog\n"


def shares(box):
    left, top, right, bottom = np.divide(box, [*SIZE[::-1]] * 2).tolist()
    return left, top, right, bottom


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
    check(data, "val", "d")
    listing = "\n".join(f"./images/train/{name}.jpg" for name in "ca")
    (yolo / "list.txt").write_text(listing)
    (yolo / "labels/val/d.txt").write_bytes(b"\xef\xbb\xbf" + (yolo / "labels/val/d.txt").read_bytes())
    names = "names: ['cat', cow, \"dog\"]\nnc: 3\ndownload: |\n  rm nothing\n"
    (yolo / "data.yaml").write_text(f"path: ../elsewhere\ntrain: [list.txt, ../images/val]\n{names}")
    check(data, "train", "cad", crowds=False)
    (yolo / "labels/train/a.txt").write_text("2 0.1 0.1 0.3 0.1 0.3 0.5 0.2 0.5\n")
    BOX = ((8, 4, 24, 20), "dog", False)
    [batch] = read(load(data, "train", image_size=SIZE, target="boxes"))
    np.testing.assert_allclose(batch["boxes"][1, 0], BOX[0], atol=1e-4)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("data.yaml", "train: [", "data.yaml' is not YAML: while parsing"),
        ("data.yaml", "!!python/object/apply:os.system ['true']", "is not YAML: could not determine"),
        ("data.yaml", "nothing", "must have the keys 'train', 'val' and 'names'; got 'nothing'"),
        ("data.yaml", "val: images/val\nnames: {0: a, 2: b}", "`names` must be a list of classes"),
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


def test_csv(tmp_path):
    """The rows are those of Google's page: with two vertices, with four, and without a box."""
    write_images(tmp_path)
    rows = []
    for name, of_set in zip("abcd", ("TRAINING", "UNASSIGNED", "Validation", "TEST"), strict=True):
        for number, (box, label, _) in enumerate(BOXES["abcd".index(name)]):
            left, top, right, bottom = shares(box)
            corners = [
                f"{left},{top},,,{right},{bottom},,",
                f"{left},{top},{right},{top},{right},{bottom},{left},{bottom}",
            ][number]
            rows.append(f"{of_set},{name}.jpg,{label},{corners}")
        if name == "b":
            rows.append(f"{of_set},b.jpg,,,,,,,,,")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    data = f"csv:{tmp_path}/list.csv"
    check(data, crowds=False)
    check(data, "train", "ab", crowds=False)
    check(data, "val", "c")
    check(data, "test", "d")
    short = [",".join(field for field in row.split(",") if field) for row in rows if "b.jpg" not in row]
    header = "set,path,label,x_min,y_min,,,x_max,y_max,,"
    (tmp_path / "list.csv").write_text(
        "\n".join([header, *(short[i].replace("TEST", "UNASSIGNED") for i in (2, 3))])
    )
    check(data, "val", "c", classes=("cat", "cow"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("TRAIN,a.jpg,dog,0.1,0.1", "row 1: 'set,path,label,.*' was expected, 11 fields, .* got 5"),
        ("BOTH,a.jpg,dog,0.1,0.1,,,0.3,0.3,,", "TRAIN, VALIDATION, TEST or UNASSIGNED was .* 'BOTH'"),
        ("TRAIN,gs://x/a.jpg,dog,0.1,0.1,,,0.3,0.3,,", "row 1: a path of a file here was expected"),
        ("TRAIN,a.jpg,dog,0.1,x,,,0.3,0.3,,", "row 1: a label and the coordinates of a box were expected"),
        ("TRAIN,a.jpg,,0.1,0.1,,,0.3,0.3,,", "row 1: a label and the coordinates"),
        ("TRAIN,x.jpg,dog,0.1,0.1,,,0.3,0.3,,", "1 of the 1 images that '.*list.csv' lists are not there"),
        ("TRAIN,../a.jpg,dog,0.1,0.1,,,0.3,0.3,,", "row 1: a path below the file's folder was expected"),
        ("TRAIN,a.jpg,dog,10,10,,,30,30,,", "None of 1 box can be used: 1 outside of the image"),
        ("TRAIN,a.jpg,,,,,,,,,", "lists no boxes for the split 'train'"),
        ("TRAIN,a.jpg,,,,,,,,,\nTEST,a.jpg,,,,,,,,,", "row 2: 'a.jpg' is in the sets 'train' and 'test'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_csv(tmp_path, row, message):
    write_images(tmp_path, "a")
    (tmp_path / "list.csv").write_text(row)
    with pytest.raises(UserError, match=message):
        open_source(f"csv:{tmp_path}/list.csv", "train", target="boxes")


def test_tfds(tmp_path, cache_folder):
    import tensorflow_datasets as tfds

    def info(self):
        label = tfds.features.ClassLabel(names=["cat", "cow", "dog"])
        objects = {"bbox": tfds.features.BBoxFeature(), "label": label, "is_crowd": np.bool_}
        image = tfds.features.Image(shape=(None, None, 3))
        features = tfds.features.FeaturesDict({"image": image, "objects": tfds.features.Sequence(objects)})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def examples():
        for number, boxes in enumerate(BOXES):
            objects = [
                {
                    "bbox": tfds.features.BBox(*np.take(shares(box), [1, 0, 3, 2])),
                    "label": label,
                    "is_crowd": crowd,
                }
                for box, label, crowd in boxes
            ]
            yield number, {"image": np.full((*SIZE, 3), number, "uint8"), "objects": objects}

    methods = {
        "VERSION": "1.0.0",
        "_info": info,
        "_split_generators": lambda self, _: {"train": examples()},
        "_generate_examples": None,
        "pkg_dir_path": tmp_path,
    }
    kind = type("KvisionBoxes", (tfds.core.GeneratorBasedBuilder,), methods | {"__module__": "boxes"})
    kind(data_dir=tmp_path).download_and_prepare()
    tfds.core.add_data_dir(tmp_path)
    how = {"image_size": SIZE, "target": "boxes", "batch_size": 8}
    [batch] = read(load("tfds:kvision_boxes", "all", **how))
    order = ["abcd"[int(number)] for number in batch["image"][:, 0, 0, 0]]
    assert order != list("abcd")  # records are shuffled
    for _ in range(2):  # the second time from the cache
        check("tfds:kvision_boxes", order="".join(order))
        [kept] = cache_folder.glob("objects-*.npz")
    kept.write_bytes(kept.read_bytes()[:-50])
    check("tfds:kvision_boxes", order="".join(order))
    with pytest.raises(UserError, match="not a dataset of semantic segmentation"):
        open_source("tfds:kvision_boxes", "all", target="mask")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "digits",
            "'digits' gives labels and no boxes: shapes, coco:PATH, voc:PATH, yolo:FILE, csv:PATH or tfds",
        ),
        ("masks:x", "'masks:x' gives masks and no boxes"),
    ],
)
def test_datasets_without_boxes_are_refused(data, message):
    with pytest.raises(NoLabels, match=message):
        open_source(data, "train", target="boxes")


def test_forms_are_told():
    for data, message in (
        ("coco", "The path is missing in 'coco': coco:PATH was expected"),
        ("yolo", "The file is missing in 'yolo': yolo:FILE was expected"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(data, "train", target="boxes")
    with pytest.raises(
        FileNotFoundError, match="no folder '/nowhere'; another form is coco:FILE.json,FOLDER"
    ):
        open_source("coco:/nowhere", "train", target="boxes")
