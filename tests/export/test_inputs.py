"""Images alone, and with proposals beside them."""

import numpy as np

from kvision_export.inputs import joined, less, named, pixels


def test_images_with_proposals_are_gone_through_as_images_are():
    boxes = np.arange(24.0).reshape(2, 3, 4)
    alone, both = (
        np.full((2, 4, 4, 3), 9.0),
        joined({"image": np.full((2, 4, 4, 3), 9.0), "proposals": boxes}),
    )
    for images in (alone, both):
        assert len(images) == 2
        shifted = [less(image, 2) for image in images[1:]]
        assert (pixels(shifted[0]) == 7).all()
        assert (pixels(images) == 9).all()  # those that are given stay as they are
    np.testing.assert_array_equal(named(shifted[0])["proposals"], boxes[1])
    assert [*named(both)] == ["image", "proposals"]
    assert named(both)["proposals"].dtype == np.float32
    assert [*named(alone)] == ["image"]
