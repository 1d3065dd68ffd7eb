"""What several test files use: tiny networks, and commands as a shell runs them."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import kvision

ONE_A_FAMILY = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_small_minimal",
                "efficientnet_b0", "efficientnet_lite0"]  # fmt: skip
TINY = [
    "--model=mobilenet_v1", "--model_kwarg=width_multiplier=0.25", "--image_size=32", "--batch_size=64",
    "--norm_momentum=0.9", "--learning_rate=0.02",
]  # fmt: skip


def tiny(name, **keywords):
    """The narrowest and shallowest form of a network."""
    columns = {"width_multiplier": 0.1, "depth_multiplier": 0.3}
    columns = {key: value for key, value in columns.items() if hasattr(kvision.info(name).variant, key)}
    return kvision.create_model(name, **({"input_shape": (64, 64, 3), "num_classes": 3} | columns | keywords))


def randomized(model):
    """Batch norms that are not the identity, as in a trained network."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (w.shape for w in layer.get_weights())
            layer.set_weights([
                random.uniform(0.8, 1.2, gamma), random.normal(0, 0.1, beta),
                random.normal(0, 0.1, mean), random.uniform(0.8, 1.2, variance),
            ])  # fmt: skip
    return model


def command(*arguments, code=0):
    """Runs a command; returns what it printed, or the one sentence on which it ended."""
    name, *flags = map(str, arguments)
    path = Path(sys.executable).with_name(name)
    result = subprocess.run([path, *flags], capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    if code == 2:
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("kvision-")]
        assert len(lines) == 1, result.stderr
        return lines[0]
    return result.stdout + result.stderr
