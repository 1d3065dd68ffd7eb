"""Images with masks: what masks are decoded to, what is wrong with them, and where they come from."""

import io
import os
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvision.data import load, read_errors
from kvision.data.masks import IGNORED, classes_in, decode_mask, reason
from kvision.data.sources import open_source
from kvision.data.sources.shapes import draw
from kvision.data.sources.voc import CLASSES
from kvision.errors import UserError
from kvision.names import say_once

random = np.random.default_rng(0)
CLASS_MAP = random.integers(0, 4, (12, 20)).astype("uint8")
SPLITS = ("train", "val", "all")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    say_once.cache_clear()
    return folder / "kvision"


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def palette(values, **options):
    image = Image.fromarray(values).convert("P")
    image.putpalette(random.integers(0, 256, 768, "uint8").tolist())
    image.putdata(values.ravel().tolist())
    return encoded(image, **options)


def grey(values, bits):
    """A PNG of fewer bits than Pillow writes."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = values.shape
    ones = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    rows = np.pad(np.packbits(ones, axis=1), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


LARGE = np.where(CLASS_MAP == 3, IGNORED, CLASS_MAP).astype("uint8")
FILES = {
    "8 bits": (encoded(Image.fromarray(LARGE)), LARGE),
    "palette": (palette(LARGE), LARGE),
    "palette with a clear colour": (palette(LARGE, transparency=2), LARGE),
    "palette of 4 bits": (palette(CLASS_MAP, bits=4), CLASS_MAP),
    "palette of 1 bit": (palette(CLASS_MAP // 2, bits=1), CLASS_MAP // 2),
    "16 bits": (encoded(Image.fromarray(CLASS_MAP.astype("uint16") * 300)), CLASS_MAP.astype(int) * 300),
    "1 bit": (encoded(Image.fromarray(CLASS_MAP > 1)), CLASS_MAP > 1),
    **{f"{bits} bits": (grey(CLASS_MAP, bits), CLASS_MAP) for bits in (2, 4)},
}


@pytest.mark.parametrize("kind", FILES)
def test_masks_are_class_indices(kind):
    contents, expected = FILES[kind]
    for decoder in (decode_mask, tf.function(decode_mask)):
        mask = decoder(tf.constant(contents))
        assert mask.dtype == tf.int32
        np.testing.assert_array_equal(mask, expected)
    assert reason(contents) is None


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "the file is empty"),
        (FILES["8 bits"][0][:50], ""),
        (FILES["palette"][0][:-60], ""),
        (FILES["8 bits"][0][:60] + b"damaged" + FILES["8 bits"][0][67:], ""),
    ],
)
def test_damaged_masks_say_why(contents, words):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_mask(tf.constant(contents))
    assert words in reason(contents)
    assert reason(contents).isprintable()


def write(root, count=10, classes=("sky", "tree", "house", "car"), exif=1, folders=("images", "masks")):
    """Images as bright as 50 times their masks, which are those of the turned images."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = np.random.default_rng(i).integers(0, 4, (3, 5)).repeat(10, 0).repeat(8, 1).astype("uint8")
        tags = Image.Exif()
        tags[0x0112] = exif
        stored = np.rot90(mask) if exif == 6 else mask
        pixels = np.repeat(50 * stored[..., None], 3, -1)
        Image.fromarray(pixels).save(root / folders[0] / f"{i}.jpg", quality=99, subsampling=0, exif=tags)
        (root / folders[1] / f"{i}.png").write_bytes(palette(mask))
    if classes:
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root


HOW = {"image_size": (30, 40), "target": "mask"}


def read(data, count=30):
    with read_errors([data]):
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(count), strict=False)]


def fits(batch):
    """Whether images are as bright as 50 times their masks, away from edges."""
    image, mask = batch["image"][..., 0], batch["mask"]
    return np.mean(np.abs(image - 50 * mask)[mask != IGNORED] < 3)


@pytest.mark.parametrize("exif", [1, 6])
@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
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
    for augment in ("crop_flip", "scale_crop_flip"):
        how = HOW | {"training": True, "augment": augment, "cache": cache}
        batches = read(load(f"masks:{root}", "train", **how), 2)
        assert min(map(fits, batches)) > (0.6 if augment == "crop_flip" else 0)
    if exif == 6:
        with pytest.raises(UserError, match=r"0.png' has 40 x 30 pixels and its image, .*, 30 x 40: a mask"):
            read(load(f"masks:{root}", "all", exif=False, **HOW))


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


def test_without_a_list_classes_are_numbers(tmp_path, capsys, cache):
    root = write(tmp_path, classes=None)
    (root / "masks" / "1.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), 6, "uint8"))))
    (root / "masks" / "2.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), IGNORED, "uint8"))))
    (root / "masks" / "3.png").write_bytes(b"damaged")
    for split in ("train", "val"):
        assert open_source(f"masks:{root}", split, target="mask").class_names == tuple("0123456")
    said = capsys.readouterr().err
    assert "classes.txt', a name a line: the classes are the numbers 0 to 6, the largest in 10 masks." in said
    [kept] = cache.glob("classes-*.json")
    assert classes_in([], "other") == []
    kept.write_text("{damaged")
    assert len(open_source(f"masks:{root}", "val", target="mask").class_names) == 7
    assert kept.read_text() == "[0, 1, 2, 3, 6]"
    (root / "masks" / "1.png").write_bytes(encoded(Image.fromarray(np.full((30, 40), 2, "uint8"))))
    assert len(open_source(f"masks:{root}", "val", target="mask").class_names) == 4


def test_masks_of_grey_levels_without_a_list_are_refused(tmp_path, cache):
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
    another_size: "has 40 x 31 pixels and its image, as its EXIF orientation turns it, 40 x 30: a mask must",
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
        UserError, match=r"3 of 10 images failed to decode, `max_unreadable` is 0.2; the last"
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
        "images have other names, sizes, contents or labels, or another order"
    ]
    write(tmp_path, 20)
    assert before.changes(identity()) == ["there are 16 images instead of 8"]


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
        kind = type(name, (tfds.core.GeneratorBasedBuilder,), methods | {"__module__": __name__})
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
        ("shapes", "box", "`target` must be one of 'label', 'labels', 'mask'; got 'box'."),
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
