"""Pictures of training batches, with their targets."""

import numpy as np

from kvision.tasks import Classification, MultiLabel, Segmentation

IMAGES = np.stack([np.full((20, 30, 3), shade, np.float32) for shade in (10.2, 250)])
NAMES = ("ground", "cat", "dog")


def test_targets_are_captions_or_colours():
    single = Classification(class_names=NAMES).preview(None, {"image": IMAGES, "label": np.array([2, 0])})
    assert [caption for _, caption in single] == ["dog", "ground"]
    assert [picture.getpixel((3, 3)) for picture, _ in single] == [(10,) * 3, (250,) * 3]
    labels = {"image": IMAGES[..., :1], "labels": np.array([[0, 1, 1], [0, 0, 0]])}
    several = MultiLabel(class_names=NAMES).preview(None, labels)
    assert [caption for _, caption in several] == ["cat, dog", "none"]
    mask = np.zeros((2, 20, 30), int)
    mask[1, :10] = 1
    masks = Segmentation(class_names=NAMES).preview(None, {"image": IMAGES, "mask": mask})
    first, second = (picture for picture, _ in masks)
    assert first.getpixel((3, 3)) == (10, 10, 10)
    assert second.getpixel((3, 3)) != second.getpixel((3, 15)) == (250, 250, 250)
