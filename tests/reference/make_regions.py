"""Writes regions.npz: torchvision's pooled regions and anchors of small maps.

pip install torch torchvision && python tests/reference/make_regions.py
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, roi_align, roi_pool

random = np.random.default_rng(0)
IMAGE = (150, 190)  # height, width: the strides of the maps below divide neither
STRIDES = (4, 8, 16)


def boxes(count, height, width):
    """Of all sizes, inside the image but for the last two."""
    sides = np.exp(random.uniform(0, 5, (count, 2)))
    first = random.uniform(0, 1, (count, 2)) * (width, height)
    drawn = np.concatenate([first, np.minimum(first + sides, (width, height))], -1)
    drawn[0] = 0, 0, width, height
    drawn[-2:] = (-30, -9, 40, 20), (-20, -40, width + 60, height + 90)
    return drawn.astype("float32")


def main():
    arrays = {}
    sizes = [tuple(-(-side // stride) for side in IMAGE) for stride in STRIDES]
    maps = {str(i): random.standard_normal((2, 3, *size)).astype("float32") for i, size in enumerate(sizes)}
    regions = np.stack([boxes(20, *IMAGE), boxes(20, *IMAGE)])
    arrays |= {f"map{name}": x.transpose(0, 2, 3, 1) for name, x in maps.items()} | {"boxes": regions}
    tensors = {name: torch.tensor(x) for name, x in maps.items()}
    listed = list(torch.tensor(regions))
    for name, keywords in {
        "align": {"sampling_ratio": 2},
        "align_aligned": {"sampling_ratio": 2, "aligned": True},
        "align_three_samples": {"sampling_ratio": 3},
    }.items():
        arrays[name] = roi_align(tensors["2"], listed, 7, 1 / 16, **keywords)
    arrays["align_levels"] = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)(tensors, listed, [IMAGE])
    arrays["pool"] = roi_pool(tensors["2"], [x[:-2] for x in listed], 7, 1 / 16)
    arrays["pool_fine"] = roi_pool(tensors["0"], [x[:-2] for x in listed], 3, 1 / 4)
    images = ImageList(torch.zeros(1, 3, *IMAGE), [IMAGE])
    sides = ((32,), (64,), (128, 256))
    arrays["anchors"] = torch.cat(
        AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 3)(images, list(tensors.values()))
    )
    generator = DefaultBoxGenerator([[2, 3]] * 3, min_ratio=0.2, max_ratio=0.95)
    arrays["default_boxes"] = torch.cat(generator(images, list(tensors.values())))
    for name, array in arrays.items():
        if isinstance(array, torch.Tensor):
            array = array.numpy()
            if array.ndim == 4:
                array = array.transpose(0, 2, 3, 1).reshape(2, -1, *array.shape[2:], 3)
        arrays[name] = array
    np.savez_compressed(Path(__file__).parent / "regions.npz", **arrays)


if __name__ == "__main__":
    main()
