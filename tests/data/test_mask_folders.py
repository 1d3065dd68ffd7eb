"""`masks:` folders: layouts, classes, faults, and the identity of a dataset."""

import os
import re
import shutil

import numpy as np
import pytest
from masks import HOW, SPLITS, encoded, fits, palette, read, write
from PIL import Image

from kvision.data import load
from kvision.data.masks import IGNORED, classes_in
from kvision.data.sources import open_source
from kvision.errors import UserError


@pytest.mark.parametrize(
    ("exif", "cache"),
    [
        (1, "none"),
        (6, "disk"),
        *(pytest.param(6, cache, marks=pytest.mark.slow) for cache in ("none", "ram")),
    ],
)
def test_images_come_with_their_masks(tmp_path, exif, cache):
    """Masks of images that their EXIF orientation turns are those of the turned images."""
    root = write(tmp_path, exif=exif)
    data = load(f"masks:{root}", "train", cache=cache, batch_size=4, **HOW)
    assert data.class_names == ("sky", "tree", "house", "car")
    for _ in range(2):  # the second time from the cache
        batches = read(data)
        assert [len(batch["mask"]) for batch in batches] == [4, 4]
        assert {*np.unique(batches[0]["mask"])} == {0, 1, 2, 3}
        assert min(map(fits, batches)) > 0.97
    how = HOW | {"training": True, "augment": "crop_flip", "cache": cache}
    assert min(map(fits, read(load(f"masks:{root}", "train", **how), 2))) > 0.6
    if exif == 6:
        with pytest.raises(UserError, match=r"0.png' has 40 x 30 pixels and its image, .*, 30 x 40: a mask"):
            read(load(f"masks:{root}", "all", exif=False, **HOW))


def test_folders_of_splits_with_a_year_or_twice_and_what_lies_beside_them(tmp_path, capsys):
    for name in ("train2017", "val2017", "extra"):
        write(tmp_path, 3, folders=(f"images/{name}", f"masks/{name}"))
    assert open_source(f"masks:{tmp_path}", "val", target="mask").size == 3
    assert "1 beside the splits ('images/extra')" in capsys.readouterr().err
    write(tmp_path, 3, folders=("images/valid", "masks/valid"))
    with pytest.raises(UserError, match="several folders for the split 'val': 'val2017', 'valid'"):
        open_source(f"masks:{tmp_path}", "val", target="mask")


def test_a_mask_with_a_class_that_its_dataset_lacks_is_named(tmp_path):
    """Also where the network has that class."""
    root = write(tmp_path)
    source = open_source(f"masks:{root}", "all", target="mask").with_classes("abcde", range(4))
    for path in (root / "masks").iterdir():
        path.write_bytes(palette(np.full((30, 40), 4, np.uint8)))
    with pytest.raises(UserError, match="has a pixel of the class 4: valid classes are 0 to 3"):
        read(load(source, "all", **HOW))


@pytest.mark.parametrize("layout", ["train/images", "images/train", "images"])
def test_layouts_and_their_splits(tmp_path, layout):
    if layout == "images":
        write(tmp_path)
        sizes = {"train": 8, "val": 2, "all": 10}
    else:
        for name, count in (("train", 5), ("valid", 3)):
            images = layout.replace("train", name)
            write(tmp_path, count, folders=(images, images.replace("images", "masks")))
        sizes = {"train": 5, "val": 3, "all": 8}
    sources = {split: open_source(f"masks:{tmp_path}", split, target="mask") for split in SPLITS}
    assert {split: source.size for split, source in sources.items()} == sizes
    names = [{source.name_of(i) for i in range(source.size)} for source in sources.values()]
    assert names[0] | names[1] == names[2]
    assert not names[0] & names[1]
    for source in sources.values():
        for index in range(source.size):
            image, mask = source.name(index, "image"), source.name(index, "mask")
            assert mask == image.replace("images", "masks").replace(".jpg", ".png")
    with pytest.raises(UserError, match="no split 'test'"):
        open_source(f"masks:{tmp_path}", "test", target="mask")


def test_without_a_list_classes_are_numbers(tmp_path, capsys, cache_folder):
    root = write(tmp_path, classes=None)
    (root / "masks" / "1.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), 6, "uint8"))))
    (root / "masks" / "2.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), IGNORED, "uint8"))))
    (root / "masks" / "3.png").write_bytes(b"damaged")
    for split in ("train", "val"):
        assert open_source(f"masks:{root}", split, target="mask").class_names == tuple("0123456")
    said = capsys.readouterr().err
    assert "classes.txt', a name a line: the classes are the numbers 0 to 6, the largest in 10 masks." in said
    [kept] = cache_folder.glob("classes-*.json")
    assert classes_in([], "other") == []
    kept.write_text("{damaged")
    assert len(open_source(f"masks:{root}", "val", target="mask").class_names) == 7
    assert kept.read_text() == "[0, 1, 2, 3, 6]"
    (root / "masks" / "1.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), 2, "uint8"))))
    assert len(open_source(f"masks:{root}", "val", target="mask").class_names) == 4


def test_masks_of_grey_levels_without_a_list_are_refused(tmp_path):
    root = write(tmp_path, classes=None)
    (root / "masks" / "2.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), 254, "uint8"))))
    with pytest.raises(
        UserError, match="the values 0, 1, .* alone, which look like grey levels: .* name all 255"
    ):
        open_source(f"masks:{root}", "train", target="mask")


def colours(root):
    (root / "masks/0.png").write_bytes(encoded(Image.new("RGB", (40, 30))))


def a_jpeg(root):
    (root / "masks/0.png").write_bytes(encoded(Image.new("L", (40, 30)), "JPEG"))


def a_class_too_many(root):
    mask = np.zeros((30, 40), "uint8")
    mask[3, 5] = 4
    (root / "masks/0.png").write_bytes(encoded(Image.fromarray(mask)))


def another_size(root):
    (root / "masks/0.png").write_bytes(encoded(Image.new("L", (40, 31))))


def no_mask(root):
    (root / "masks/0.png").unlink()


def no_image(root):
    for i in range(3):
        (root / f"images/{i}.jpg").unlink()


def two_images(root):
    shutil.copy(root / "images/0.jpg", root / "images/0.png")


def no_folder(root):
    shutil.rmtree(root / "masks")


def nothing(root):
    shutil.rmtree(root / "images")


def a_class_twice(root):
    (root / "classes.txt").write_text("sky\ntree\nsky\ncar\n")


WRONG = {
    colours: "has colours or transparency (Pillow's mode RGB): a PNG of class indices (1 to 16 bits of grey,",
    a_jpeg: "has the format JPEG: a PNG of class indices (1 to 16 bits of grey, or a palette) was expected.",
    a_class_too_many: "has a pixel of the class 4: valid classes are 0 to 3, and 255 for pixels that are",
    another_size: "has 40 x 31 pixels and its image, as it is read, 40 x 30: a mask must",
}

MISSING = {
    no_mask: "images/0.jpg' has no mask of the same name.",
    no_image: "masks/0.png' has no image of the same name; 3 files have none.",
    two_images: "images/0.jpg' and .*images/0.png' differ in their endings alone: one was expected.",
    no_folder: "There is no folder '.*masks' of the masks of '.*images'.",
    nothing: "has no folders of images and masks: 'images' and 'masks', 'train/images' and 'train/masks', or",
    a_class_twice: "classes.txt' has the class 'sky' more than once.",
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("number", [0, 9])
def test_wrong_masks_end_the_reading_in_a_sentence(tmp_path, fault, number):
    """The first image's mask when the dataset is opened, another's when it is read."""
    fault(write(tmp_path))
    for path in tmp_path.glob("*/0.*"):
        path.replace(path.with_name(f"{number}{path.suffix}"))
    with pytest.raises(UserError, match=f"masks/{number}.png' {re.escape(WRONG[fault])}") as raised:
        read(load(f"masks:{tmp_path}", "all", max_unreadable=1.0, **HOW))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("fault", MISSING)
def test_missing_files_are_named(tmp_path, fault):
    fault(write(tmp_path))
    with pytest.raises(UserError, match=MISSING[fault]):
        open_source(f"masks:{tmp_path}", "all", target="mask")


def test_what_is_damaged_is_skipped_and_counted(tmp_path):
    root = write(tmp_path)
    (root / "images/3.jpg").write_bytes(b"damaged")
    (root / "masks/5.png").write_bytes(b"")
    (root / "masks/6.png").write_bytes((root / "masks/6.png").read_bytes()[:-40])
    for training in (False, True):
        data = load(f"masks:{root}", "all", max_unreadable=0.3, training=training, batch_size=3, **HOW)
        batches = read(data)
        assert {os.path.relpath(name, root): file.class_name for name, file in data.unreadable.items()} == {
            "images/3.jpg": "", "masks/5.png": "", "masks/6.png": "",
        }  # fmt: skip
        assert data.unreadable[str(root / "masks/5.png")].reason == "the file is empty"
        assert sum(len(batch["mask"]) for batch in batches) == (90 if training else 7)
        assert min(map(fits, batches)) > 0.97
    with pytest.raises(
        UserError,
        match=r"3 of 10 images of the split 'all' failed to decode, `max_unreadable` is 0.2; the last",
    ):
        read(load(f"masks:{root}", "all", max_unreadable=0.2, **HOW))
    for path in (root / "masks").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"none of 10 images can be read \(9 are empty, such as '.*masks/0.png"
    ):
        open_source(f"masks:{root}", "all", target="mask")


def test_masks_that_go_away_end_the_reading(tmp_path):
    data = load(f"masks:{write(tmp_path)}", "all", **HOW)
    (tmp_path / "masks/4.png").unlink()
    with pytest.raises(FileNotFoundError, match="4.png' is not there any more"):
        read(data)


def test_masks_belong_to_the_identity_of_a_dataset(tmp_path):
    def identity():
        return open_source(f"masks:{tmp_path}", "train", target="mask").identity

    write(tmp_path)
    before = identity()
    assert before.counts == (8,)
    assert before == identity() != open_source(f"masks:{tmp_path}", "val", target="mask").identity
    path = (
        tmp_path
        / "masks"
        / os.path.basename(open_source(f"masks:{tmp_path}", "train", target="mask").name(0, "mask"))
    )
    path.write_bytes(palette(np.zeros((30, 40), "uint8")))
    assert before.changes(identity()) == [
        "images have other names, sizes, contents, labels or boxes, or another order"
    ]
    write(tmp_path, 20)
    assert before.changes(identity()) == ["there are 16 images instead of 8"]
