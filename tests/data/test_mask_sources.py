"""Other datasets with masks, and datasets that give something else."""

import shutil

import numpy as np
import pytest
from masks import CLASS_MAP, HOW, SPLITS, fits, read, write

from kvision.data import load
from kvision.data.sources import open_source
from kvision.data.sources.shapes import draw
from kvision.data.sources.voc import CLASSES
from kvision.errors import UserError


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    write(root, folders=("JPEGImages", "SegmentationClass"))
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, images in (("train", range(6)), ("val", (7, 8)), ("trainval", (*range(6), 7, 8))):
        text = "".join(f"{image}\n" for image in images)
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(text)
    return root


def test_voc(voc):
    for root in (voc, voc.parent):
        sizes = [open_source(f"voc:{root}", split, target="mask").size for split in SPLITS]
        assert sizes == [6, 2, 8]
    data = load(f"voc:{voc}", "val", **HOW)
    assert data.class_names == CLASSES
    assert (len(CLASSES), CLASSES[15], CLASSES[-1]) == (21, "person", "tvmonitor")  # the devkit's VOCinit.m
    assert fits(read(data)[0]) > 0.97
    for name in ("train", "val"):
        (voc / "ImageSets/Segmentation" / f"{name}.txt").unlink()
    sizes = [open_source(f"voc:{voc}", split, val_fraction=0.25, target="mask").size for split in SPLITS]
    assert sizes == [6, 2, 8]
    (voc / "SegmentationClass/5.png").unlink()
    with pytest.raises(
        UserError, match=r"1 of the 8 images that .* lists have no mask; the first is '.*5.png'"
    ):
        open_source(f"voc:{voc}", "all", target="mask")
    shutil.copytree(voc, voc.parent / "VOC2007")
    with pytest.raises(
        UserError, match="several years, 'VOC2007', 'VOC2012': give one, such as 'voc:.*2012'"
    ):
        open_source(f"voc:{voc.parent}", "train", target="mask")
    with pytest.raises(UserError, match="is not a VOCdevkit: 'JPEGImages', 'SegmentationClass' and"):
        open_source(f"voc:{voc.parent.parent}", "train", target="mask")
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_source("voc:/nowhere", "train", target="mask")


def test_tfds_with_masks(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def builder(name, **features):
        def info(self):
            image = tfds.features.Image(shape=(None, None, 3))
            features_dict = tfds.features.FeaturesDict({"image": image, **features})
            return tfds.core.DatasetInfo(builder=self, features=features_dict)

        def examples(count):
            for i in range(count):
                mask = (CLASS_MAP + 1) * (i > 0) + (i == 0)  # 1 to 4
                example = {"image": np.repeat(50 * mask[..., None], 3, -1).astype("uint8")}
                yield i, example | {key: mask[..., None].astype("uint8") for key in features}

        methods = {
            "VERSION": "1.0.0",
            "_info": info,
            "_split_generators": lambda self, _: {"train": examples(5), "test": examples(2)},
            "_generate_examples": None,
            "pkg_dir_path": tmp_path,
        }
        kind = type(name, (tfds.core.GeneratorBasedBuilder,), methods | {"__module__": "pets"})
        kind(data_dir=tmp_path).download_and_prepare()

    grey = tfds.features.Image(shape=(None, None, 1))
    builder("KvisionPets", segmentation_mask=grey)
    builder("KvisionNamed", mask=tfds.features.LabeledImage(labels=6), other=grey)
    builder("KvisionTwo", one=grey, two=grey)
    tfds.core.add_data_dir(tmp_path)
    how = {"image_size": (12, 20), "target": "mask", "batch_size": 8}
    data = load("tfds:kvision_pets", "train", **how)
    assert (data.class_names, data.size) == (("1", "2", "3", "4"), 5)
    [batch] = read(data)
    ordered = sorted(batch["mask"], key=np.mean)  # records are shuffled
    np.testing.assert_array_equal(ordered, [0 * CLASS_MAP, *[CLASS_MAP] * 4])
    np.testing.assert_array_equal(batch["image"][..., 0], 50 * (batch["mask"] + 1))
    sources = [open_source("tfds:kvision_pets", split, target="mask") for split in ("val", "test", "all")]
    assert [source.size for source in sources] == [2, 2, 7]
    data = load("tfds:kvision_named", "train", cache="ram", **how)
    assert data.class_names == tuple("012345")
    [batch] = read(data)
    np.testing.assert_array_equal(max(batch["mask"], key=np.mean), CLASS_MAP + 1)
    with pytest.raises(UserError, match="kvision_two' is not a dataset of semantic segmentation"):
        open_source("tfds:kvision_two", "train", target="mask")
    with pytest.raises(UserError, match="'tfds:kvision_pets' is not a dataset of image classification"):
        open_source("tfds:kvision_pets", "train")


def test_shapes_are_drawn_alike_and_differ_by_split():
    train, val, whole = (open_source("shapes", split, target="mask") for split in SPLITS)
    assert [source.size for source in (train, val, whole)] == [400, 100, 500]
    assert train.class_names == ("background", "circle", "square", "triangle")
    images, masks = ([np.asarray(example[name]) for example in map(whole.example, range(500))]
                     for name in ("image", "mask"))  # fmt: skip
    assert len({image.tobytes() for image in images}) == 500
    np.testing.assert_array_equal(val.example(3)["image"], images[403])
    assert train.identity != val.identity
    assert images[0].shape == (96, 96, 3)
    shares = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=4) / (500 * 96 * 96)
    assert 0.7 < shares[0] < 0.9
    assert shares[1:].min() > 0.03
    again = draw(0, 7)
    np.testing.assert_array_equal(again.image, images[7])
    np.testing.assert_array_equal(again.mask, masks[7])


def test_boxes_and_masks_of_shapes_are_those_of_the_pixels():
    """A box holds its shape to the last pixel; each kind has its area, and stands out from the background."""
    areas = {1: np.pi / 4, 2: 1, 3: 0.5}
    for index in range(60):
        picture = draw(5, index)
        assert 1 <= len(picture.shapes) <= 4
        left = picture.mask.copy()
        for shape in picture.shapes:
            box = np.s_[shape.top : shape.bottom, shape.left : shape.right]
            inside = picture.mask[box] == shape.label
            assert inside.any(0).all()
            assert inside.any(1).all()
            assert abs(inside.mean() - areas[shape.label]) < 0.1
            left[box] = 0
        assert not left.any()
        for label in np.unique(picture.mask)[1:]:
            assert picture.mask.max() <= 3
            assert np.ptp(picture.image[picture.mask == label].astype(int), 0).max() > 0  # noise


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_need_nothing(channels):
    data = load("shapes", "val", channels=channels, batch_size=100, **HOW | {"image_size": (96, 96)})
    [batch] = read(data)
    assert batch["image"].shape == (100, 96, 96, channels)
    np.testing.assert_array_equal(batch["mask"][0], draw(1, 0).mask)
    if channels == 3:
        np.testing.assert_array_equal(batch["image"][0], draw(1, 0).image)


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        ("digits", "mask", "'digits' gives labels and no masks: shapes, masks:PATH, voc:PATH or tfds:NAME"),
        ("folder:x", "mask", "'folder:x' gives labels and no masks: shapes,"),
        ("csv:x", "mask", "'csv:x' gives labels and no masks"),
        ("tfrecord:x", "mask", "'tfrecord:x' gives labels and no masks"),
        ("shapes", "label", "'shapes' gives masks and no labels: digits, folder:PATH, csv:PATH, tfrecord"),
        ("masks:x", "label", "'masks:x' gives masks and no labels: digits"),
        ("voc:x", "label", "'voc:x' gives masks and no labels: digits"),
        ("tfds:mnist", "mask", "'tfds:mnist' is not a dataset of semantic .*: it has 'image', 'label'."),
        ("mask:x", "mask", "Unknown dataset 'mask:x': shapes, masks:PATH, .* Did you mean 'masks'"),
        ("masks", "mask", "The path is missing in 'masks': masks:PATH was expected."),
        ("shapes:9", "mask", "'shapes' takes no path; got 'shapes:9'. Datasets are shapes, masks:PATH"),
        ("shapes", "box", "`target` must be one of 'label', 'labels', 'mask', 'boxes', .*; got 'box'."),
    ],
)  # fmt: skip
def test_datasets_that_give_something_else_are_refused(data, target, message):
    with pytest.raises(UserError, match=message):
        open_source(data, "train", target=target)


def test_images_alone_can_be_read_of_any_dataset(tmp_path):
    for data in ("shapes", f"masks:{write(tmp_path)}"):
        source = open_source(data, "all", labeled=False)
        assert source.class_names == ("unlabeled",)
        [batch, *_] = read(load(source, "all", image_size=(8, 8)))
        assert batch.keys() == {"image", "weight", "label"}
