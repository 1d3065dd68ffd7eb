"""Logits against timm's, torchvision's and PyTorch's, for weights that are a formula of their names."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from golden import formula_image, formula_weights
from helpers import mostly_slow
from peers import ours

import kvision

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "golden.json").read_text())
LOGITS = np.load(REFERENCE / "golden.npz")
TOLERANCE = 2e-5


def logits(peer, preprocess, pixels):
    name, columns = ours(peer)
    entry = ENTRIES[peer]
    model = kvision.create_model(
        name, input_shape=entry["input"], preprocess=preprocess, classifier_activation=None, **columns
    )
    source = model
    if "weights of" in entry:  # of another size: to be resampled when they are loaded
        source = kvision.create_model(name, input_shape=entry["weights of"], **columns)
    shapes = {key: value.shape for key, value in kvision.weights.state_dict(source).items()}
    kvision.weights.load(model, formula_weights(shapes, entry["gain"]))
    if len(LOGITS[peer]) != model.output_shape[-1]:  # a peer without a classifier
        model = keras.Model(model.input, model.get_layer(kvision.info(name).classifier).input)
    return keras.ops.convert_to_numpy(model(pixels[None], training=False))[0]


def difference(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


LIKE_OTHERS = {  # of other numbers of the same blocks
    "deit_tiny_patch16_224", "mobilenetv4_conv_small", "tf_mobilenetv3_large_minimal_100",
    "deit_tiny_distilled_patch16_224", "mobilenetv2_140", "mobilenetv4_conv_medium", "tf_efficientnet_lite1",
    "tf_efficientnet_lite2", "tf_efficientnet_lite3", "tf_efficientnetv2_b2", "tf_mobilenetv3_small_075",
    "vit_tiny_patch16_224", "tf_efficientnet_lite0", "tf_mobilenetv3_small_100", "convnext_atto",
    "deit_tiny_distilled_patch16_224 at 288x288",
}  # fmt: skip


def marked(names):
    slow = {name for name in names if ENTRIES[name]["params"] > 12e6} | LIKE_OTHERS
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


ILL_CONDITIONED = [key.removesuffix(".float64") for key in LOGITS.files if key.endswith(".float64")]


def test_every_network_has_logits_from_outside():
    assert {ours(peer)[0] for peer in ENTRIES} == {*kvision.list_models(task="classification")}


@pytest.mark.parametrize("peer", marked(sorted(ENTRIES.keys() - set(ILL_CONDITIONED))))
def test_logits(peer):
    entry = ENTRIES[peer]
    preprocess = kvision.Preprocess(*(tuple(255 * value for value in entry[key]) for key in ("mean", "std")))
    height, width, channels = entry["input"]
    pixels = formula_image(height, width)[..., :channels].astype("float32")
    assert difference(logits(peer, preprocess, pixels), LOGITS[peer]) < TOLERANCE


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("peer", mostly_slow(ILL_CONDITIONED, "tf_efficientnetv2_b0"))
def test_logits_of_ill_conditioned_networks(peer, float64):
    """timm's own float32 logits of these are further than the tolerance from its float64 ones."""
    entry, expected = ENTRIES[peer], LOGITS[f"{peer}.float64"]
    assert difference(LOGITS[peer], expected) > TOLERANCE
    pixels = (formula_image(*entry["input"][:2]) / 255 - entry["mean"]) / entry["std"]
    assert difference(logits(peer, kvision.Preprocess((0,) * 3, (1,) * 3), pixels), expected) < 1e-10
