"""Writes a `masks:` and `coco:` dataset of real pictures: stamps of Tux Paint, pasted on photographs.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb stamps
    pip install scikit-image scikit-learn matplotlib
    python tests/reference/make_stamps.py stamps/usr/share/tuxpaint/stamps OUTPUT

Each of 600 training and 150 validation images is a crop of a photograph, 256 x 256, with one to four stamps,
scaled, turned and mirrored, that do not overlap. Validation has photographs that training does not see; the
stamps are the same. Pixels on the edge of a stamp, which mix both, are 255. A stamp's box holds all of it.
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import skimage
import sklearn  # pyright: ignore
from PIL import Image

CLASSES = {  # the folders of their stamps
    "bird": "animals/birds",
    "mammal": "animals/mammals",
    "fruit": "food/fruit",
    "flower": "plants/flowers",
    "vehicle": "vehicles",
}
COUNTS = {"train": 600, "val": 150}
SIZE = 256  # height and width
SIDES = (64, 144)  # smallest and largest longer side of a stamp
MOST = 4  # stamps in an image
TRIES = 20  # to find a place that is free
OPAQUE = 250  # alpha above which a pixel is the stamp's; between 5 and it, it mixes both
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets/images"
MATPLOTLIB = Path(matplotlib.get_data_path()) / "sample_data"
PHOTOGRAPHS = {
    "train": [
        *(SKIMAGE / f"{name}.png" for name in ("astronaut", "motorcycle_left", "brick", "coins", "gravel")),
        SKIMAGE / "rocket.jpg",
        SKLEARN / "china.jpg",
    ],
    "val": [
        *(SKIMAGE / f"{name}.png" for name in ("coffee", "chelsea", "grass", "camera")),
        SKLEARN / "flower.jpg",
        MATPLOTLIB / "grace_hopper.jpg",
    ],
}


def crop(photograph, random):
    """A square of half to all of the shorter side, resized."""
    side = int(min(photograph.size) * random.uniform(0.5, 1))
    left, top = (random.integers(0, length - side + 1) for length in photograph.size)
    return photograph.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))


def transformed(stamp, random):
    """The stamp scaled, turned by up to 20 degrees and mirrored half of the time, cut to what is visible."""
    side = random.integers(SIDES[0], SIDES[1] + 1)
    stamp = stamp.rotate(random.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    stamp = stamp.resize([max(1, round(length * side / max(stamp.size))) for length in stamp.size])
    return stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else stamp


def draw(photographs, stamps, random):
    """An image, its mask, and the boxes of its stamps: class, left, top, width and height."""
    image = crop(photographs[random.integers(len(photographs))], random)
    mask, boxes = np.zeros((SIZE, SIZE), np.uint8), []
    for _ in range(random.integers(1, MOST + 1)):
        label = random.integers(len(CLASSES))
        stamp = transformed(stamps[label][random.integers(len(stamps[label]))], random)
        width, height = stamp.size
        for _ in range(TRIES):
            left, top = random.integers(0, SIZE - width + 1), random.integers(0, SIZE - height + 1)
            place = mask[top : top + height, left : left + width]
            if not place.any():
                alpha = np.asarray(stamp.getchannel("A"))
                place[alpha > 255 - OPAQUE] = 255
                place[alpha > OPAQUE] = label + 1
                image.paste(stamp, (int(left), int(top)), stamp)
                boxes.append((int(label), int(left), int(top), width, height))
                break
    return image, Image.fromarray(mask), boxes


def main(folder, output):
    stamps = [
        [Image.open(path).convert("RGBA") for path in sorted(Path(folder, name).rglob("*.png"))]
        for name in CLASSES.values()
    ]
    for seed, (split, count) in enumerate(COUNTS.items()):
        photographs = [Image.open(path).convert("RGB") for path in PHOTOGRAPHS[split]]
        random = np.random.default_rng(seed)
        listed = {
            "images": [],
            "annotations": [],
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)],
        }
        for number in range(count):
            *pictures, boxes = draw(photographs, stamps, random)
            for kind, picture in zip(("images", "masks"), pictures, strict=True):
                path = Path(output, split, kind, f"{number:03}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
            image = {"id": number, "file_name": f"images/{number:03}.png", "width": SIZE, "height": SIZE}
            listed["images"].append(image)
            for label, *box in boxes:
                fields = {"image_id": number, "category_id": label + 1, "bbox": box, "iscrowd": 0}
                fields |= {"id": len(listed["annotations"]), "area": box[2] * box[3]}
                listed["annotations"].append(fields)
        Path(output, split, "_annotations.coco.json").write_text(json.dumps(listed))
    Path(output, "classes.txt").write_text("\n".join(["background", *CLASSES]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
