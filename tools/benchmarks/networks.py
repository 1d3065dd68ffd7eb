"""Speed of building and running networks on this machine, against keras.applications and plain Keras layers.

    python tools/benchmarks/networks.py [build|forward|groups]

`build`: seconds to build each network that both have, with fresh weights. `forward`: milliseconds for a batch
of ConvNeXt-T. `groups`: a training step of ResNeXt-50 with this package's grouped convolution and with
`keras.layers.Conv2D(groups=32)`. Both take turns in one process; the figures are medians.
"""

import statistics
import sys
import time

import keras
import numpy as np
import rich.console
import rich.table
import tensorflow as tf

import kvision
from kvision.layers import GroupedConv2D

PEERS = {
    "convnext_tiny": "ConvNeXtTiny",
    "densenet121": "DenseNet121",
    "efficientnet_b0": "EfficientNetB0",
    "efficientnet_b7": "EfficientNetB7",
    "efficientnet_v2_s": "EfficientNetV2S",
    "inception_v3": "InceptionV3",
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "resnet50": "ResNet50",
    "vgg16": "VGG16",
    "xception": "Xception",
}


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(functions, repeats) -> list[float]:
    """The median seconds of each function, after one call to warm up; they take turns."""
    for function in functions:
        function()
    times = [[seconds(function) for function in functions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def build():
    table = rich.table.Table("network", "kvision s", "keras s", "ratio", title="Building, weights=None")
    for name, peer in PEERS.items():
        builders = (
            lambda name=name: kvision.create_model(name),
            lambda peer=peer: getattr(keras.applications, peer)(weights=None),
        )
        ours, theirs = compare(builders, 5)
        table.add_row(name, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}")
    return table


def forward():
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 224, 224, 3)).astype("float32")
    models = (kvision.models.convnext_tiny(), keras.applications.ConvNeXtTiny(weights=None))
    runs = [tf.function(lambda x, model=model: model(x, training=False)) for model in models]
    ours, theirs = compare([lambda run=run: run(pixels).numpy() for run in runs], 3)
    table = rich.table.Table("network", "kvision ms", "keras ms", "ratio", title="Forward, 4 images")
    table.add_row("convnext_tiny", f"{1e3 * ours:.0f}", f"{1e3 * theirs:.0f}", f"{theirs / ours:.1f}")
    return table


def groups():
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 224, 224, 3)).astype("float32")
    steps = []
    for call in (
        GroupedConv2D.call,
        lambda self, inputs, training=None: keras.layers.Conv2D.call(self, inputs),
    ):
        model = kvision.models.resnext50_32x4d()

        @tf.function
        def step(x, model=model, call=call):
            GroupedConv2D.call, kept = call, GroupedConv2D.call
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x, training=True)[:, 0])
            GroupedConv2D.call = kept
            return [tf.reduce_sum(g) for g in tape.gradient(loss, model.trainable_variables)]

        steps.append(lambda step=step: step(pixels)[0].numpy())
    ours, theirs = compare(steps, 1)
    table = rich.table.Table(
        "network", "kvision s", "Conv2D s", "ratio", title="Training step, 4 images of 64 x 64"
    )
    table.add_row("resnext50_32x4d", f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.0f}")
    return table


if __name__ == "__main__":
    parts = {"build": build, "forward": forward, "groups": groups}
    for name in sys.argv[1:] or parts:
        if name not in parts:
            sys.exit(f"Unknown part {name!r}: {', '.join(parts)} were expected.")
        rich.console.Console(highlight=False).print(parts[name]())
