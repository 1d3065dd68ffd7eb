"""Augmentations: images and masks move together, as Pillow moves them, and follow from the seed."""

from functools import cache, partial

import numpy as np
import pytest
import tensorflow as tf
from helpers import mostly_slow
from PIL import Image, ImageEnhance

from kvision import choices
from kvision.data import load, transforms
from kvision.data.images import GREY, letterbox, random_box, unletterbox
from kvision.data.masks import IGNORED
from kvision.data.sources import Source
from kvision.data.transforms import AUGMENTATIONS, OTHERS, Frame

SINGLE = [name for name in AUGMENTATIONS if name not in OTHERS]
SIZE = (40, 48)
ROWS, COLUMNS = np.mgrid[:60, :90]
RAMP = (ROWS + COLUMNS).astype("int32")  # a mask whose image is as bright
SHADES = np.repeat(RAMP[..., None], 3, -1).astype("uint8")
PATCHES = np.random.default_rng(0).integers(0, 9, (6, 9)).repeat(10, 0).repeat(10, 1).astype("int32")


@cache
def traced(name, frame, jitter):
    """An augmentation as a graph, into which its `jitter` goes as a constant."""
    return tf.function(partial(AUGMENTATIONS[name], frame=frame), autograph=False, reduce_retracing=True)


def augmented(name, seed=0, image=SHADES, mask=RAMP, **keywords):
    frame = Frame(size=SIZE, channels=image.shape[-1], **keywords)
    example = {"image": tf.constant(image), "mask": tf.constant(mask), "label": tf.constant(7)}
    seeds = (tf.constant(seed, tf.int64), tf.constant(3, tf.int64))
    example = traced(name, frame, transforms.JITTER)(example, seeds)
    assert example.pop("label") == 7
    return example["image"].numpy(), example["mask"].numpy()


def pillows(image, size, kind):
    return np.asarray(Image.fromarray(image).resize(size[::-1], kind))


def test_the_names_of_flags_are_those_of_functions():
    assert tuple(AUGMENTATIONS) == choices.AUGMENTATIONS


def test_a_registered_function_is_an_augmentation():
    @transforms.augmentation
    def black(example, seed, frame):
        return example | {"image": tf.zeros((*frame.size, frame.channels))}

    try:
        data = load("digits", "val", image_size=(8, 8), augment="black")
        assert not next(data.dataset.as_numpy_iterator())["image"].any()
    finally:
        del AUGMENTATIONS["black"]


@pytest.mark.parametrize("name", SINGLE)
def test_an_image_and_its_mask_move_together(name, monkeypatch):
    monkeypatch.setattr(transforms, "JITTER", 0.0)
    pictures = set()
    for seed in range(20):
        image, mask = augmented(name, seed)
        assert (image.shape, mask.shape, image.dtype, mask.dtype) == ((*SIZE, 3), SIZE, "float32", "int32")
        empty = mask == IGNORED
        assert np.all(image[empty] == GREY)
        difference = image[~empty, 0] - mask[~empty]
        assert np.abs(difference).max() < 3.5  # the nearest of pixels that are 2.5 apart at most
        assert abs(difference.mean()) < 0.3
        pictures.add(image.tobytes())
        again, mask_again = augmented(name, seed)
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(mask, mask_again)
    assert len(pictures) == {"none": 1, "flip": 2}.get(name, 20)


@pytest.mark.parametrize("name", ["crop", "crop_flip"])
def test_boxes_of_masks_are_pillows(name):
    mirrored = 0
    for seed in range(8):
        seeds = (seed, tf.constant(3, tf.int64))
        (top, left), (height, width) = (part.numpy() for part in random_box(RAMP.shape, 0.3, seeds))
        _, mask = augmented(name, seed, mask=PATCHES, min_crop_area=0.3)
        expected = pillows(PATCHES[top : top + height, left : left + width], SIZE, Image.NEAREST)
        if not np.array_equal(mask, expected):
            mirrored += 1
            np.testing.assert_array_equal(mask, expected[:, ::-1])
    assert (mirrored > 0) == (name == "crop_flip")


def test_without_augmentation_nothing_is_cut_off():
    """60 x 90 pixels in 40 x 48 are 32 x 48, with 4 rows of padding above and below."""
    image, mask = augmented("none", image=SHADES, mask=PATCHES)
    np.testing.assert_array_equal(mask[4:-4], pillows(PATCHES, (32, 48), Image.NEAREST))
    assert np.abs(image[4:-4] - pillows(SHADES, (32, 48), Image.BILINEAR)).max() < 1
    for padding in (slice(4), slice(-4, None)):
        assert np.all(mask[padding] == IGNORED)
        assert np.all(image[padding] == GREY)


@pytest.mark.parametrize("shape", [(20, 45), (45, 20), (40, 48), (3, 48), (1, 1)])
def test_predictions_go_back_to_the_size_of_the_image(shape):
    mask = np.random.default_rng(0).integers(0, 5, shape).astype("int32")
    image = np.repeat(mask[..., None], 3, -1).astype("uint8")
    _, boxed = augmented("none", image=image, mask=mask)
    resized, offset = (part.numpy() for part in letterbox(shape, SIZE))
    assert (boxed != IGNORED).sum() == resized.prod()
    assert np.all((offset == 0) | (resized < SIZE))
    if np.all(resized >= shape):
        np.testing.assert_array_equal(unletterbox(boxed, shape), mask)
    assert np.all(unletterbox(boxed, shape) != IGNORED)
    places = [(np.arange(SIZE[i]) - offset[i] + 0.5) * shape[i] / resized[i] - 0.5 for i in range(2)]
    logits = np.stack(np.meshgrid(*places, indexing="ij"), -1).astype("float32")
    back = unletterbox(np.where(boxed[..., None] == IGNORED, 1e6, logits).astype("float32"), shape).numpy()
    assert np.abs(back - np.stack(np.mgrid[: shape[0], : shape[1]], -1)).max() < 0.5  # at the borders


def test_scales_cover_their_range(monkeypatch):
    """A square image fills the share of the frame that its scale gives it."""
    monkeypatch.setattr(transforms, "JITTER", 0.0)
    square = np.zeros((40, 40), "int32")
    image = np.zeros((40, 40, 1), "uint8")
    shares = [
        np.mean(augmented("scale_crop_flip", seed, image=image, mask=square)[1] == 0) for seed in range(60)
    ]
    assert min(shares) < 0.3  # 20 x 20 of 40 x 48 pixels are 0.21
    assert max(shares) == 1
    assert 0.2 < np.mean(np.array(shares) == 1) < 0.8


def test_colours_change_as_pillow_changes_them():
    image = np.random.default_rng(0).integers(40, 200, (30, 40, 3)).astype("uint8")
    there = np.full((30, 40, 1), True)
    for factors in ((0.7, 1.0, 1.0), (1.0, 1.3, 1.0), (1.0, 1.0, 0.6), (1.2, 0.8, 1.4)):
        expected = Image.fromarray(image)
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for kind, factor in zip(kinds, factors, strict=True):
            expected = kind(expected).enhance(factor)
        pixels = transforms._jittered(tf.constant(image, tf.float32), there, tf.constant(factors))
        assert np.abs(pixels - np.asarray(expected)).max() < 4  # which rounds down each time
    levels = {augmented("scale_crop_flip", seed, image=np.full((40, 48, 1), 100, "uint8"),
                        mask=np.zeros((40, 48), "int32"))[0][20, 24, 0] for seed in range(30)}  # fmt: skip
    assert min(levels) >= 60
    assert max(levels) <= 140.01
    assert max(levels) - min(levels) > 40


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images_without_masks_are_augmented_too(name, channels):
    contents = tf.io.encode_png(SHADES)
    example = {"image": contents, "label": tf.constant(1)}
    example = AUGMENTATIONS[name](example, (0, 1), Frame(size=SIZE, channels=channels))
    assert example.keys() == {"image", "label"}
    assert example["image"].shape == (*SIZE, channels)


def masked(count=20):
    """A source of images in memory, each as bright as its mask, in which a corner has no class."""
    images, masks = np.repeat(SHADES[None], count, 0), np.repeat(RAMP[None], count, 0)
    masks += np.arange(count)[:, None, None]
    masks[:, :9, :9] = IGNORED
    images, masks = tf.constant(images), tf.constant(masks)
    return Source(
        tuple(map(str, range(200))),
        None,
        lambda index: images[index],
        encoded=False,
        targets={"mask": lambda index: masks[index]},
        count=count,
    )


@pytest.mark.parametrize("augment", mostly_slow(SINGLE))
def test_batches_of_masks_are_exact_under_resume_and_shards(augment):
    how = {"image_size": SIZE, "training": True, "augment": augment, "seed": 5}

    def batches(count, **keywords):
        data = load(masked(), "train", **how | keywords)
        return [batch for batch, _ in zip(data.dataset.as_numpy_iterator(), range(count), strict=False)]

    whole = batches(12, batch_size=4)
    assert whole[0].keys() == {"image", "weight", "mask"}
    assert (whole[0]["mask"].shape, whole[0]["mask"].dtype) == ((4, *SIZE), "int32")
    assert not np.array_equal(whole[0]["mask"], whole[5]["mask"])
    half = batches(12, batch_size=2, shard=(0, 2))
    [resumed] = batches(1, batch_size=2, shard=(1, 2), start=4 * 7)
    for name, later in whole[7].items():
        np.testing.assert_array_equal(resumed[name], later[1::2])
        for step in (0, 6, 11):
            np.testing.assert_array_equal(half[step][name], whole[step][name][::2])
