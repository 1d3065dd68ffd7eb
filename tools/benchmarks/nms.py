"""Non-maximum suppression of 2,000 boxes on this machine's CPU, beside TensorFlow's.

    python tools/benchmarks/nms.py

Figures are medians of 50 calls, which take turns; the boxes have sides of 5 to 40 in 100 x 100. TensorFlow
and kvision end once they have 300 detections.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from kvision.layers import NonMaxSuppression, suppress

COUNT, MOST, IOU = 2000, 300, 0.5


def boxes_and_scores():
    """Random boxes, the best first."""
    random = np.random.default_rng(0)
    centres, sides = random.uniform(0, 100, (COUNT, 2)), random.uniform(5, 40, (COUNT, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], -1).astype("float32")
    return tf.constant(boxes), tf.constant(np.sort(random.uniform(size=COUNT))[::-1].astype("float32"))


def main():
    boxes, scores = boxes_and_scores()
    layer = NonMaxSuppression(MOST, COUNT, score_threshold=0.0, iou_threshold=IOU)
    calls = {
        "kvision.layers.suppress": lambda: suppress(boxes[None], IOU, MOST),
        "kvision.layers.NonMaxSuppression": lambda: layer(boxes[None], scores[None, :, None])["scores"],
        "tf.image.non_max_suppression": lambda: tf.image.non_max_suppression(boxes, scores, MOST, IOU),
    }
    functions = {name: tf.function(call) for name, call in calls.items()}
    times = {name: [] for name in functions}
    for _ in range(53):
        for name, function in functions.items():
            started = time.perf_counter()
            keras.ops.convert_to_numpy(function())
            times[name].append(time.perf_counter() - started)
    for name, seconds in times.items():
        print(f"{1000 * statistics.median(seconds[3:]):6.2f} ms  {name}")


if __name__ == "__main__":
    main()
