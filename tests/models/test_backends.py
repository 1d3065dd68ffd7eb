"""The networks on another backend of Keras."""

import os
import subprocess
import sys

import numpy as np
import pytest
from golden import formula_weights
from helpers import SEGMENTERS, mostly_slow, tiny, tiny_segmenter

import kvision

QUICK = ["vit_tiny_patch16"]
OTHERS = [
    "swin_v2_tiny", "resnext50_32x4d", "mobilenet_v4_hybrid_medium", "convnext_v2_atto", "fcn8s",
    "lraspp_mobilenet_v3_large",
]  # fmt: skip


def logits(name):
    build = tiny_segmenter if name in SEGMENTERS else tiny
    model = build(name, classifier_activation=None)
    shapes = {key: value.shape for key, value in kvision.weights.state_dict(model).items()}
    kvision.weights.load(model, formula_weights(shapes, 1.4))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    return model.predict(pixels, verbose=0)  # compiled, in a fifth of the time that JAX takes else


@pytest.mark.parametrize("names", mostly_slow([QUICK, OTHERS], QUICK), ids=str)
def test_jax_gives_the_same_logits(names, tmp_path):
    path = tmp_path / "logits.npz"
    call = f"test_backends.save({str(path)!r}, {names})"
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_backends; {call}"
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.path.dirname(__file__),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles in less time
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found = np.load(path)
    assert found.files == names
    for name, expected in found.items():
        ours = logits(name)
        assert np.linalg.norm(ours - expected) < 2e-5 * np.linalg.norm(expected), name


def save(path, names):
    np.savez(path, **{name: logits(name) for name in names})
