"""Writes transforms.npz: what timm's evaluation makes of photographs, before it normalises them.

    pip install timm scikit-image && python tests/reference/make_transforms.py

A key is the photograph of scikit-image, height, width, crop fraction and interpolation; the value is uint8.
"""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "rocket.jpg")  # 512 x 512, 451 x 300 and 640 x 427
CASES = (
    (224, 224, 0.875, "bicubic"),
    (96, 96, 0.875, "bilinear"),
    (96, 96, 0.95, "bicubic"),
    (128, 128, 1.0, "bicubic"),
    (112, 80, 0.9, "bicubic"),
)


def main():
    expected = {}
    for photograph in PHOTOGRAPHS:
        image = Image.open(Path(skimage.__file__).parent / "data" / photograph).convert("RGB")
        for height, width, crop, interpolation in CASES:
            transform = transforms_imagenet_eval(
                (height, width), crop, interpolation=interpolation, use_prefetcher=True
            )
            key = f"{photograph} {height} {width} {crop} {interpolation}"
            expected[key] = transform(image).permute(1, 2, 0).numpy()
    np.savez_compressed(Path(__file__).with_name("transforms.npz"), **expected)


if __name__ == "__main__":
    main()
