"""Groups of layers by depth."""

import re

import keras
import pytest
from helpers import DISTINCT, EVERY_BLOCK, mostly_slow, tiny

import kvision


def weighty(model):
    return [layer.name for layer in model.layers if layer.weights]


ONE_OF_A_FAMILY = {kvision.info(name).family: name for name in (*DISTINCT, *EVERY_BLOCK)}.values()


@pytest.mark.parametrize("small", mostly_slow(ONE_OF_A_FAMILY, *EVERY_BLOCK[::2]), indirect=True)
def test_groups_hold_each_layer_once_and_follow_each_other(small):
    name, model = small
    *trunk, top = kvision.depth_groups(model)
    names = [layer for group in trunk for layer in group]
    assert sorted([*names, *top]) == sorted(weighty(model))
    assert all(trunk)
    bare = tiny(name, include_top=False)
    assert kvision.depth_groups(bare) == [*trunk, [layer for layer in weighty(bare) if layer in top]]
    # No group needs one behind it.
    depth = {layer: i for i, group in enumerate(kvision.depth_groups(model)) for layer in group}
    below = {}  # the deepest group that a tensor stands on
    for op in model.operations:
        reached = max(
            (below[id(tensor)] for tensor in keras.tree.flatten(op.input) if id(tensor) in below), default=0
        )
        assert depth.get(op.name, reached) >= reached, op.name
        for tensor in keras.tree.flatten(op.output):
            below[id(tensor)] = depth.get(op.name, reached)


@pytest.mark.parametrize(
    ("built", "blocks"),
    [  # of the papers' tables, but for the stem and the head
        pytest.param("resnet50", 3 + 4 + 6 + 3, marks=pytest.mark.slow),
        ("densenet121", 6 + 1 + 12 + 1 + 24 + 1 + 16),  # with the transitions
        ("mobilenet_v1", 13),
        pytest.param("mobilenet_v2", 17 + 1, marks=pytest.mark.slow),  # with the head convolution
        pytest.param("efficientnet_b0", 16 + 1, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 3 + 3 + 9 + 3, marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16", 12, marks=pytest.mark.slow),
        pytest.param("deit_tiny_distilled", 12, marks=pytest.mark.slow),
        ("swin_tiny", 2 + 2 + 6 + 2),
        pytest.param("vgg16_bn", 13 - 1, marks=pytest.mark.slow),  # its first convolution is the stem
        pytest.param(
            "googlenet", 9 + 2, marks=pytest.mark.slow
        ),  # three convolutions come before the modules
    ],
    indirect=["built"],
)
def test_a_group_is_a_block(built, blocks):
    groups = kvision.depth_groups(built)
    assert len(groups) == 1 + blocks + 1


def test_stem_downsampling_norms_and_heads():
    stem, *_, last, top = kvision.depth_groups(tiny("deit_base_distilled"))
    assert sorted(stem) == ["cls_token", "dist_token", "patch_embed.proj", "pos_embed"]
    assert last[-1] == "norm"  # before the tap, so of the trunk
    assert top == ["head", "head_dist"]
    groups = kvision.depth_groups(tiny("convnext_atto"))
    assert groups[0] == ["stem.0", "stem.1"]
    assert groups[2][:2] == ["stages.1.downsample.0", "stages.1.downsample.1"]
    assert {re.sub(r"blocks\.0.*", "blocks.0", name) for name in groups[2][2:]} == {"stages.1.blocks.0"}
    assert groups[-1] == ["head.norm", "head.fc"]
    assert kvision.depth_groups(tiny("mobilenet_v2"))[-2:] == [["conv_head", "bn2"], ["classifier"]]


def test_side_classifiers_are_of_the_head():
    plain, sides = (
        kvision.depth_groups(tiny("googlenet_bn", auxiliary=auxiliary)) for auxiliary in (False, True)
    )
    assert plain[:-1] == sides[:-1]
    assert {name.split(".")[0] for name in sides[-1]} == {"aux1", "aux2", "fc"}


def test_a_reloaded_model_has_the_same_groups(tmp_path):
    model = tiny("mobilenet_v4_hybrid_medium")
    model.save(tmp_path / "model.keras")
    assert kvision.depth_groups(keras.models.load_model(tmp_path / "model.keras")) == kvision.depth_groups(
        model
    )


def test_a_model_without_a_trunk_is_refused():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="plain has no layer `trunk`"):
        kvision.depth_groups(model)
