"""Logits against timm's, for weights that are a formula of their names."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from golden import formula_image, formula_weights

import kvision

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "golden.json").read_text())
FLOAT32 = np.load(REFERENCE / "golden.npz")
FLOAT64 = np.load(REFERENCE / "float64.npz")
TOLERANCE = 2e-5

TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5}
NAMES = {
    "mobilenetv1_100": ("mobilenet_v1", TIMM),
    "mobilenetv2_100": ("mobilenet_v2", TIMM),
    "mobilenetv2_140": ("mobilenet_v2", TIMM | {"width_multiplier": 1.4}),
    "tf_mobilenetv3_large_100": ("mobilenet_v3_large", {}),
    "tf_mobilenetv3_large_minimal_100": ("mobilenet_v3_large_minimal", {}),
    "tf_mobilenetv3_small_075": ("mobilenet_v3_small", {"width_multiplier": 0.75}),
    "tf_mobilenetv3_small_100": ("mobilenet_v3_small", {}),
} | {name: (name.removeprefix("tf_"), {}) for name in ENTRIES if name.startswith("tf_efficientnet")}


def logits(peer, preprocess, pixels):
    name, columns = NAMES[peer]
    entry = ENTRIES[peer]
    model = kvision.create_model(
        name,
        input_shape=entry["input"],
        weights=formula_weights(entry["tensors"], entry["gain"]),
        preprocess=preprocess,
        classifier_activation=None,
        **columns,
    )
    return keras.ops.convert_to_numpy(model(pixels[None], training=False))[0]


def difference(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def marked(names):
    large = {name for name in names if ENTRIES[name]["params"] > 30e6}
    return [pytest.param(name, marks=pytest.mark.slow) if name in large else name for name in names]


@pytest.mark.parametrize("peer", marked(sorted(ENTRIES.keys() - set(FLOAT64.files))))
def test_logits(peer):
    entry = ENTRIES[peer]
    preprocess = kvision.Preprocess(*(tuple(255 * value for value in entry[key]) for key in ("mean", "std")))
    pixels = formula_image(*entry["input"][:2]).astype("float32")
    assert difference(logits(peer, preprocess, pixels), FLOAT32[peer]) < TOLERANCE


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("peer", FLOAT64.files)
def test_logits_of_ill_conditioned_networks(peer, float64):
    """timm's own float32 logits of these are further than the tolerance from its float64 ones."""
    entry = ENTRIES[peer]
    assert difference(FLOAT32[peer], FLOAT64[peer]) > TOLERANCE
    pixels = (formula_image(*entry["input"][:2]) / 255 - entry["mean"]) / entry["std"]
    assert difference(logits(peer, kvision.Preprocess((0,) * 3, (1,) * 3), pixels), FLOAT64[peer]) < 1e-10
