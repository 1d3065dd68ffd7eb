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
