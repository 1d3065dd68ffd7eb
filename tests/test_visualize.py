"""Pictures of predictions."""

import io

import numpy as np
from PIL import Image

from kvision import visualize


def test_the_palette_is_that_of_pascal_voc():
    """The published colours of aeroplane, bicycle, person, tv/monitor."""
    colors = visualize.palette()
    assert colors[[0, 1, 2, 15, 20]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128],
    ]  # fmt: skip
    assert len(np.unique(colors, axis=0)) == 256


def test_a_mask_is_written_as_the_numbers_of_its_classes():
    mask = np.array([[0, 1, 2], [20, 255, 7]])
    file = io.BytesIO()
    visualize.mask_image(mask).save(file, "PNG")
    with Image.open(file) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), mask)
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)


def test_an_overlay_colours_all_but_the_background_and_names_the_classes():
    image = np.full((40, 60, 1), 100.0)
    mask = np.zeros((40, 60), int)
    mask[:20], mask[20:22] = 1, 255
    picture = visualize.overlay(image, mask, ("background", "cat"), alpha=0.5)
    assert picture.size[0] >= 60
    assert picture.size[1] == 40 + 2 * visualize.ROW
    assert picture.getpixel((5, 5)) == (114, 50, 50)
    assert picture.getpixel((5, 21)) == picture.getpixel((5, 35)) == (100, 100, 100)


def test_boxes_have_the_colours_of_their_classes_and_labels_inside_the_picture():
    image = np.full((400, 500, 3), 200, np.uint8)
    boxes = np.float32([[0, 0, 120, 90], [300, 250, 500, 400]])
    picture = np.array(visualize.draw_boxes(image, boxes, [0, 1], [0.9, 0.8], ("cat", "dog")))
    assert picture.shape == image.shape
    assert (picture[:90, [0, 119]] == [128, 0, 0]).all(-1).mean() > 0.8  # both sides, less the label
    assert (picture[250:, [300, 499]] == [0, 128, 0]).all()
    changed = (picture != image).any(-1)
    assert not changed[100:220].any()
    assert not changed[:, 130:290].any()
    assert changed[5:12, 10:50].all(), "the first label is within its box, as there is no room above"
    assert changed[235:245, 305:330].all(), "the second is above"


def test_labels_of_equal_boxes_lie_beside_each_other_and_long_ones_are_cut():
    image, box = np.full((400, 400, 1), 200.0), [100, 100, 300, 300]
    one, two = (
        np.array(visualize.draw_boxes(image, [box] * count, [7] * count, None, ["word " * 40] * 8))
        for count in (1, 2)
    )
    rows = [(picture[:, 350:390] != 200).any((1, 2)).sum() for picture in (one, two)]  # beside the boxes
    assert rows[1] == 2 * rows[0] > 20


def test_small_images_are_enlarged_so_that_labels_are_readable():
    image = np.random.default_rng(0).integers(0, 256, (32, 50, 3), np.uint8)
    picture = visualize.draw_boxes(image, np.zeros((0, 4)), np.zeros(0, int))
    np.testing.assert_array_equal(picture, image.repeat(10, 0).repeat(10, 1))
    picture = np.array(visualize.draw_boxes(image, [[5, 10, 45, 30]], [254]))
    assert visualize.draw_boxes(np.zeros((2, 300, 3), np.uint8), [[0, 0, 9, 2]], [0]).size == (3900, 26)
    assert (picture[100:300, [50, 449]] == [128, 0, 0]).all(), "the 255th class has the colour of the first"


def test_thin_boxes_lie_below_the_others_without_labels():
    image = np.full((400, 500, 3), 200, np.uint8)
    box = np.float32([[300, 250, 400, 350]])
    thin = np.float32([[300, 250, 400, 350], [10, 10, 60, 60]]), np.array([1, 2])
    picture = np.array(visualize.draw_boxes(image, box, [0], class_names=("cat", "dog", "cow"), thin=thin))
    one = np.array(visualize.draw_boxes(image, box, [0], class_names=("cat", "dog", "cow")))
    changed = (picture != one).any(-1)
    assert (picture[10:60, [10, 59]] == [128, 128, 0]).all()
    assert changed.sum() == 4 * 50 - 4


def test_a_sheet_has_pictures_row_by_row_with_captions():
    pictures = [(Image.new("RGB", (80, 40), (shade, 0, 0)), f"number {shade}") for shade in (10, 20, 30)]
    sheet = np.array(visualize.sheet(pictures))
    height, width = sheet.shape[0] // 2, sheet.shape[1] // 2
    assert width == 80 * 4 + visualize.GAP
    assert height == 40 * 4 + visualize.GAP + visualize.ROW
    assert [int(sheet[y, x, 0]) for y in (5, height + 5) for x in (5, width + 5)] == [10, 20, 30, 255]
    assert (sheet[165:178, :80] == 0).any(), "the caption"
    bare = visualize.sheet([(picture, "") for picture, _ in pictures])
    assert bare.size == (2 * width, 2 * (height - visualize.ROW))
