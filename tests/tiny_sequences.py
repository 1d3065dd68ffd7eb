"""Small networks of videos and captions, and inputs for networks of sequences."""

import keras
import numpy as np
from helpers import tiny

from kvision import sequence

RANDOM = np.random.default_rng(0)
FRAMES = {"input_shape": (32, 32, 3), "num_classes": 3, "frames": 4, "units": 8, "num_heads": 2}
CAPTIONS = {"input_shape": (64, 64, 3), "num_classes": 12, "length": 6, "units": 8, "num_heads": 2}


def backbone(side):
    """A small network without dropout, whose last map of an image of 64 pixels is 2 x 2."""
    return tiny("mobilenet_v1", input_shape=(side, side, 3))


def tiny_captioner(**keywords):
    return sequence.captioner(**({"backbone": backbone(64)} | CAPTIONS | keywords))


def tiny_video(head, **keywords):
    return sequence.frame_classifier(**({"backbone": backbone(32), "head": head} | FRAMES | keywords))


def inputs_for(model, batch=2):
    """Pixels, tokens or values, as the model's inputs are named; the same ones for the same shapes."""
    random = np.random.default_rng(0)

    def draw(tensor):
        shape = (batch, *tensor.shape[1:])
        if tensor.name == "tokens":
            return random.integers(1, 12, shape).astype("int32")
        return random.uniform(0, 255 if len(shape) > 3 else 1, shape).astype("float32")

    return keras.tree.map_structure(draw, model.input)
