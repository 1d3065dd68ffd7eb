"""Fidelity of files with real weights to the float network, on crops of photographs.

    pip install scikit-image scikit-learn
    python export/benchmarks/photographs.py efficientnet_lite0 WEIGHTS [OUTPUT]

The photographs are those of scikit-image, scikit-learn and matplotlib; ranges and steps see others than the
report.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import skimage
import sklearn  # pyright: ignore
from PIL import Image

import kvision
from kvision_export.exporter import export

SKIMAGE = Path(skimage.__path__[0]) / "data"
SKLEARN = Path(sklearn.__path__[0]) / "datasets/images"
MATPLOTLIB = Path(matplotlib.get_data_path()) / "sample_data"
CALIBRATION = [
    *(SKIMAGE / f"{name}.png" for name in ("astronaut", "chelsea", "motorcycle_left", "ihc", "camera")),
    *(SKIMAGE / f"{name}.png" for name in ("brick", "coins", "clock_motion")),
    SKIMAGE / "hubble_deep_field.jpg",
    SKLEARN / "china.jpg",
]
TEST = [
    *(SKIMAGE / f"{name}.png" for name in ("coffee", "cell", "grass", "gravel", "horse", "moon", "page")),
    *(SKIMAGE / f"{name}.jpg" for name in ("rocket", "retina")),
    SKLEARN / "flower.jpg",
    MATPLOTLIB / "grace_hopper.jpg",
]


def crops(paths, count, size, seed):
    """Square crops of a quarter to all of the shorter side's square, each photograph in turn."""
    random = np.random.default_rng(seed)
    photographs = [Image.open(path).convert("RGB") for path in paths]
    found = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        width, height = photograph.size
        side = int(min(width, height) * np.sqrt(random.uniform(0.25, 1)))
        left, top = int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1))
        crop = photograph.crop((left, top, left + side, top + side))
        found.append(np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), "float32"))
    return np.stack(found)


def main(name, weights, output="exports/photographs"):
    model = kvision.create_model(name, weights=weights)
    size = model.input_shape[1]
    report = export(
        model,
        output,
        images=crops(TEST, 400, size, seed=1),
        calibration=crops(CALIBRATION, 128, size, seed=0),
        modes=["float32", "float16", "dynamic", "int8"],
        say=print,
    )
    print("file | kB | agrees % | SQNR dB | KL | 1 thread ms | x float32")
    for file in report["files"]:
        near, ms = file["fidelity"], file["latency_ms"][1]
        print(
            f"{file['mode']} | {file['size'] // 1000} | {100 * near['agreement']:.1f} | {near['sqnr']:.1f} | "
            f"{near['kl']:.4f} | {ms:.2f} | {file['float_latency_ms'][1] / ms:.2f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
