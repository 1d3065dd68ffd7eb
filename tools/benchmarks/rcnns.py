"""Seconds an image of R-CNN, SPPNet and Fast R-CNN on the same proposals, with fresh weights.

    python tools/benchmarks/rcnns.py --size=500 --proposals=200

SPPNet and Fast R-CNN compute their convolutions once an image, R-CNN for each proposal. What selective search
takes is not counted.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import kvision

NAMES = ("rcnn_alexnet", "sppnet_zf5", "fast_rcnn_vgg16")


def seconds(model: keras.Model, inputs: dict, repeats: int) -> float:
    """The least time of a call."""
    run = tf.function(model, autograph=False)
    run(inputs)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(inputs)["count"].numpy()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="height and width of the image in pixels")
    parser.add_argument("--proposals", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    corners = random.uniform(0, args.size / 2, (1, args.proposals, 2))
    sides = random.uniform(20, args.size / 2, corners.shape)
    proposals = np.concatenate([corners, corners + sides], -1)
    image = random.uniform(0, 255, (1, args.size, args.size, 3))
    inputs = {"image": tf.constant(image, tf.float32), "proposals": tf.constant(proposals, tf.float32)}
    slowest = None
    for name in NAMES:
        keras.utils.clear_session()
        model = kvision.create_model(name, input_shape=(args.size, args.size, 3), proposals=args.proposals)
        took = seconds(model, inputs, args.repeats)
        slowest = slowest or took
        print(f"{name:16} {took:8.3f} s  {slowest / took:5.1f} times as fast as {NAMES[0]}")


if __name__ == "__main__":
    main()
