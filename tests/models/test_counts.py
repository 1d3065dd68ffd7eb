"""Trainable parameters and multiply-adds, against timm, torchvision, keras.applications and papers."""

import json
import math
from pathlib import Path

import pytest
from helpers import built_without_memory, mostly_slow
from peers import ours

import kvision
from kvision.analysis import macs

PEERS = json.loads((Path(__file__).parents[1] / "reference/params.json").read_text())
KERAS = {
    f"MobileNet a={alpha}": ("mobilenet_v1", {"width_multiplier": alpha}) for alpha in (0.25, 0.5, 0.75, 1.0)
} | {
    f"MobileNetV3{size} a=0.75 min=True": (f"mobilenet_v3_{size.lower()}_minimal", {"width_multiplier": 0.75})
    for size in ("Large", "Small")
}
PAPERS = {  # sums over the papers' layers, densely connected where LeNet-5 is
    "lenet5": 61_706,
    "alexnet": 60_965_224,
    "vgg_f": 60_834_536,
    "vgg_m": 102_908_520,
    "vgg_s": 102_908_520,
    "googlenet": 6_998_552,
    "densenet264": 33_337_704,
    "vit_base_r50_s16": 97_890_112 + 769 * 1000,  # timm, whose network has no classifier
}
AUXILIARY_HEADS = {
    "googlenet": 3_188_840 + 3_190_888,
    "inception_v3": 27_161_264 - 23_834_568,
}  # the latter: torchvision


def parameters(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def ours_of(peer):
    """The name, columns and size of a peer's network with us."""
    name, columns = KERAS.get(peer) or ours(peer)
    return name, columns, PEERS[peer].get("input", kvision.info(name).variant.input_size)


PUBLISHED = {}  # of those that are what a builder gives by itself
OTHERS = []
for peer, numbers in PEERS.items():
    name, columns, size = ours_of(peer)
    if columns or size != kvision.info(name).variant.image_size:
        OTHERS.append(peer)
    else:
        PUBLISHED[name] = numbers


def check(model, expected):
    assert parameters(model) == expected["params"]
    if "gmacs" in expected:
        assert macs(model) / 1e9 == pytest.approx(expected["gmacs"], abs=6e-4)


def test_published(built):
    check(built, PUBLISHED.get(built.name) or {"params": kvision.info(built.name).variant.params})


ONE_OF_A_FAMILY = {kvision.info(ours_of(peer)[0]).family: peer for peer in reversed(OTHERS)}.values()


@pytest.mark.parametrize("peer", mostly_slow(OTHERS, *ONE_OF_A_FAMILY))
def test_other_columns_and_sizes(peer):
    name, columns, size = ours_of(peer)
    check(built_without_memory(name, input_shape=(size, size, 3), **columns), PEERS[peer])


def test_the_table_holds_the_published_counts():
    published = PAPERS | {
        name: PEERS[peer]["params"]
        for peer in PEERS
        for name, columns, _ in [ours_of(peer)]
        if columns.get("width_multiplier", 1.0) == 1.0 and not peer.endswith("_384")
    }
    names = kvision.list_models(task="classification")
    assert {name: kvision.info(name).variant.params for name in names} == published


@pytest.mark.parametrize("name", AUXILIARY_HEADS)
def test_side_classifiers(name):
    variant = kvision.info(name).variant
    assert parameters(built_without_memory(name, auxiliary=True)) == variant.params + AUXILIARY_HEADS[name]


ROADMAP = {  # GFLOPs of Table 10; "layer_norm" is 4.46 there, see kvision/models/_convnext_roadmap.py
    "resnet50": 4.09,
    "stage_ratio": 4.53,
    "patchify_stem": 4.42,
    "depthwise": 2.35,
    "width": 5.27,
    "inverted_bottleneck": 4.64,
    "depthwise_up": 4.07,
    "kernel_size": 4.15,
    "gelu": 4.15,
    "fewer_activations": 4.15,
    "fewer_norms": 4.15,
    "layer_norm": 4.15,
    "downsampling": 4.46,  # timm's convnext_tiny; 4.49 in the table
}


@pytest.mark.slow
def test_the_road_to_convnext():
    built = {step: built_without_memory("convnext_roadmap", step=step) for step in ROADMAP}
    assert [round(macs(model) / 1e9, 2) for model in built.values()] == list(ROADMAP.values())
    assert parameters(built["resnet50"]) == kvision.info("resnet50").variant.params
    assert parameters(built["downsampling"]) == kvision.info("convnext_tiny").variant.params
    with pytest.raises(ValueError, match="Unknown `step` 'gelo'. Did you mean 'gelu'"):
        kvision.models.convnext_roadmap("gelo")
