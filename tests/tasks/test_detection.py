"""Detection: how images are given to networks, and boxes brought back."""

import numpy as np
import pytest
from helpers import NARROW, tiny_yolox
from PIL import Image

import kvision
from kvision.tasks import Detection


def detector(form):
    if form == "corner":
        return tiny_yolox("yolox_nano")
    shape = {"input_shape": (96, 96, 3), "num_classes": 3}
    return kvision.create_model("ssdlite320_mobilenet_v3_large", **shape, **NARROW)


@pytest.mark.parametrize("form", ["stretch", "corner"])
def test_networks_see_images_as_they_were_published(form):
    """SSD without the aspect ratio, others with it."""
    task = Detection(class_names=("a", "b", "c")).fitted(detector(form))
    assert task.loading["letterbox"] == form
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[20:50, 30:90] = 255
    seen = task.prepare(pixels, (96, 96), crop=1.0, interpolation="bilinear").numpy()
    height = 96 if form == "stretch" else 48
    expected = np.asarray(Image.fromarray(pixels).resize((96, height), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(seen[:height], expected, atol=1)
    assert (seen[height:] == 114).all()
    rows, columns = np.nonzero(seen[:height, :, 0] > 127)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    answer = {"boxes": box, "scores": np.ones(1), "classes": np.zeros(1), "count": 1}
    found = task.restore(answer, (60, 120), (96, 96))["boxes"][0]
    np.testing.assert_allclose(found, [30, 20, 90, 50], atol=1.3)
