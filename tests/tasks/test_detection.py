"""Detection: how images are given to networks, and boxes brought back."""

import numpy as np
import pytest
from helpers import built_without_memory, small_columns
from PIL import Image

from kvision.tasks import Detection


@pytest.mark.parametrize(
    ("form", "name", "columns"),
    [
        ("stretch", "ssdlite320_mobilenet_v3_large", small_columns("mobilenet_v3_large")),
        ("corner", "yolox_nano", {}),
    ],
)
def test_networks_see_images_as_they_were_published(form, name, columns):
    """SSD without the aspect ratio, others with it."""
    model = built_without_memory(name, input_shape=(96, 96, 3), num_classes=3, **columns)
    task = Detection(class_names=("a", "b", "c")).fitted(model)
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
