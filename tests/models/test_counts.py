"""Trainable parameters, against timm and keras.applications."""

import json
import math
from pathlib import Path

import keras
import pytest

import kvision

PARAMS = json.loads((Path(__file__).parents[1] / "reference/params.json").read_text())

PEERS = {  # the peer's name: ours, with the columns
    "mobilenetv2_035": ("mobilenet_v2", {"width_multiplier": 0.35}),
    "mobilenetv2_050": ("mobilenet_v2", {"width_multiplier": 0.5}),
    "mobilenetv2_075": ("mobilenet_v2", {"width_multiplier": 0.75}),
    "mobilenetv2_100": ("mobilenet_v2", {}),
    "mobilenetv2_140": ("mobilenet_v2", {"width_multiplier": 1.4}),
    "MobileNet a=0.25": ("mobilenet_v1", {"width_multiplier": 0.25}),
    "MobileNet a=0.5": ("mobilenet_v1", {"width_multiplier": 0.5}),
    "MobileNet a=0.75": ("mobilenet_v1", {"width_multiplier": 0.75}),
    "MobileNet a=1.0": ("mobilenet_v1", {}),
    "tf_mobilenetv3_large_100": ("mobilenet_v3_large", {}),
    "tf_mobilenetv3_small_100": ("mobilenet_v3_small", {}),
    "tf_mobilenetv3_large_075": ("mobilenet_v3_large", {"width_multiplier": 0.75}),
    "tf_mobilenetv3_small_075": ("mobilenet_v3_small", {"width_multiplier": 0.75}),
    "tf_mobilenetv3_large_minimal_100": ("mobilenet_v3_large_minimal", {}),
    "tf_mobilenetv3_small_minimal_100": ("mobilenet_v3_small_minimal", {}),
    "MobileNetV3Large a=0.75 min=True": ("mobilenet_v3_large_minimal", {"width_multiplier": 0.75}),
    "MobileNetV3Small a=0.75 min=True": ("mobilenet_v3_small_minimal", {"width_multiplier": 0.75}),
} | {name: (name.removeprefix("tf_"), {}) for name in PARAMS if name.startswith("tf_efficientnet")}


def built_without_memory(name, **columns):
    with keras.StatelessScope(initialize_variables=False):
        return kvision.create_model(name, **columns)


@pytest.mark.parametrize("peer", PEERS)
def test_parameters_are_those_of_the_peer(peer):
    name, columns = PEERS[peer]
    model = built_without_memory(name, **columns)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == PARAMS[peer]


def test_the_table_holds_the_published_counts():
    published = {name: PARAMS[peer] for peer, (name, columns) in PEERS.items() if not columns}
    assert {name: kvision.info(name).variant.params for name in kvision.list_models()} == published
