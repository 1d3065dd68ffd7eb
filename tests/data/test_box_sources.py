"""Datasets with boxes: those of TFDS, those that have none, and the forms of their names."""

import numpy as np
import pytest
from box_files import BOXES, SIZE, check, check_list, shares
from masks import read

from kvision.data import load
from kvision.data.sources import open_source
from kvision.errors import NoLabels, UserError


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
        check_list("tfds:kvision_boxes", "all", order)
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
