"""Latency and size of our int8 files beside TFLiteConverter's of keras.applications' same networks.

    python export/benchmarks/peers.py mobilenet_v2 mobilenet_v3_small

Random weights, noise for images: of the speed, not of the accuracy. Medians, all files in turns, 224 x 224.
"""

import sys

import keras
import numpy as np

import kvision
from kvision_export.convert import PEER, convert_apart
from kvision_export.flatbuffer import read, shorten_names, write
from kvision_export.int8 import Int8Files
from kvision_export.latency import latencies
from kvision_export.search import Search
from kvision_export.versions import set_versions

THEIRS = {
    "mobilenet_v1": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "mobilenet_v3_small": keras.applications.MobileNetV3Small,
    "mobilenet_v3_large": keras.applications.MobileNetV3Large,
    "efficientnet_b0": keras.applications.EfficientNetB0,
    "efficientnet_lite0": None,
}
COLUMNS = "network", "file", "kB", "1 thread ms", "x our float32", "2 threads ms"


def smooth_images(count, size=224):
    coarse = np.random.default_rng(0).uniform(0, 255, (count, 7, 7, 3)).astype("float32")
    return np.rint(keras.ops.image.resize(coarse, (size, size)))


def with_statistics(model):
    """The model with means in its batch norms as after training; equal biases would be written once."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(random.normal(0, 0.1, layer.moving_mean.shape))
    return model


def finished(content):
    """The file as an export writes it, without metadata."""
    model = read(content)
    set_versions(model)
    shorten_names(model)
    return write(model)


def main(names):
    images = smooth_images(32)
    print(" | ".join(COLUMNS))
    for name in names or THEIRS:
        keras.utils.set_random_seed(0)
        model = with_statistics(kvision.create_model(name))
        ours = convert_apart(model, ["float32", PEER], images[:16])
        search = Search(Int8Files(ours["float32"], images[:16]), images[16:], finished=finished)
        files = {"float32": ours["float32"], "int8": finished(search.run()), PEER: ours[PEER]}
        if theirs := THEIRS[name]:
            model = with_statistics(theirs(weights=None, input_shape=(224, 224, 3)))
            made = convert_apart(model, ["float32", PEER], images[:16])
            files |= {"keras.applications float32": made["float32"], f"keras.applications {PEER}": made[PEER]}
        times = [latencies(files, images[0], threads) for threads in (1, 2)]
        for file, content in files.items():
            one, two = (milliseconds[file] for milliseconds in times)
            row = (
                name,
                file,
                len(content) // 1000,
                f"{one:.2f}",
                f"{times[0]['float32'] / one:.2f}",
                f"{two:.2f}",
            )
            print(" | ".join(map(str, row)), flush=True)
        print("  kept:", ", ".join(step.name for step in search.steps if step.kept))


if __name__ == "__main__":
    main(sys.argv[1:])
