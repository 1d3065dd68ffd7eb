"""The table of published checkpoints."""

import dataclasses
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

import kvision
from kvision.errors import UserError
from kvision.spec import IMAGENET

REFERENCE = Path(__file__).parents[1] / "reference"
SYMMETRIC = {"padding": "symmetric", "norm_epsilon": 1e-5}
ZOO = Path(__file__).parents[3] / "shared/reference/zoo.json"


def test_rows():
    rows = kvision.list_weights()
    assert len(rows) >= 150
    names = Counter((row.model, row.tag, repr(row.columns)) for row in rows)
    assert max(names.values()) == 1
    assert {row.model for row in rows} <= set(kvision.list_models())
    for row in rows:
        variant = kvision.info(row.model).variant
        assert set(row.columns) <= set(variant.columns())
        trained = dataclasses.replace(variant, **row.columns)
        assert kvision.weights.find(row.tag, row.model, trained, variant) is row
        if row.default:
            assert kvision.weights.find("imagenet", row.model, trained, variant) is row
        assert 0 < row.crop <= row.test_crop <= 1
    defaults = Counter((row.model, repr(row.columns)) for row in rows if row.default)
    assert max(defaults.values()) == 1
    assert {row.tag for row in kvision.list_weights("resnet50.*")} >= {"a1_in1k", "tv_in1k"}
    assert kvision.list_weights("resnet50") == kvision.list_weights("resnet50.*")
    (row,) = kvision.list_weights("resnet50.a1_in1k")
    assert (row.source, row.license, row.preprocess, row.num_classes, row.input_size, row.test_size) == (
        "hf-hub:timm/resnet50.a1_in1k", "apache-2.0", IMAGENET, 1000, 224, 288,
    )  # fmt: skip
    assert row.default


def test_columns_of_training_and_size_leave_the_choice_of_weights():
    """Also where a network inherits such a column and gives it another default."""
    others = {
        "auxiliary": True, "dropout_rate": 0.45, "drop_path_rate": 0.35, "norm_momentum": 0.55,
        "output_stride": 16, "resolution_multiplier": 0.5,
    }  # fmt: skip
    for row in kvision.list_weights():
        variant = kvision.info(row.model).variant
        columns = {key: value for key, value in others.items() if key in variant.columns()}
        given = dataclasses.replace(variant, **row.columns, **columns)
        assert kvision.weights.find(row.tag, row.model, given, variant) is row


def test_every_tag_is_taken_or_names_the_keywords_that_it_needs():
    """By the builder's own columns, and by those that its sentence names."""
    for row in kvision.list_weights():
        variant = kvision.info(row.model).variant
        needed = {key: value for key, value in row.columns.items() if getattr(variant, key) != value}
        alike = [r for r in kvision.weights.rows_of(row.model) if r.tag == row.tag]
        if any(not r.columns for r in alike):
            assert kvision.weights.find(row.tag, row.model, variant, variant) in alike
            continue
        with pytest.raises(UserError) as error:
            kvision.weights.find(row.tag, row.model, variant, variant)
        assert all(f"{key}={value!r}" in str(error.value) for key, value in needed.items())
        given = dataclasses.replace(variant, **needed)
        assert kvision.weights.find(row.tag, row.model, given, variant) is row


@pytest.mark.parametrize(
    ("name", "columns", "tag", "said"),
    [
        ("mobilenet_v2", {}, "keras", "'ra_in1k' .72.91 % top-1, apache-2.0. need .*padding='symmetric'"),
        ("mobilenet_v2", SYMMETRIC, "ra_in1k", None),
        ("mobilenet_v2", {"width_multiplier": 1.4}, "keras", "'ra_in1k' .* need .*padding='symmetric'"),
        ("mobilenet_v2", {"width_multiplier": 0.35}, "keras", None),
        ("mobilenet_v1", {}, "keras", "'ra4_e3600_r224_in1k' .* need .*norm_epsilon=1e-05"),
        ("mobilenet_v3_large", {}, "in1k", "'miil_in21k_ft_in1k' .77.92 % top-1, apache-2.0. need"),
        ("efficientnet_lite0", {}, "in1k", "'in1k' .74.846 % top-1, apache-2.0.; 'ra_in1k' .75.488 %"),
        ("efficientnet_lite0", SYMMETRIC, "ra_in1k", None),
        ("efficientnet_b0", {}, "ns_jft_in1k", None),
        ("resnet50", {}, "a1_in1k", None),
    ],
)
def test_imagenet_is_the_best_row_of_the_columns_and_a_better_one_is_named(name, columns, tag, said, caplog):
    default = kvision.info(name).variant
    row = kvision.weights.find("imagenet", name, dataclasses.replace(default, **columns), default)
    assert row.tag == tag
    assert len(caplog.messages) == bool(said)
    assert re.search(said or "", "".join(caplog.messages)), caplog.messages


@pytest.mark.skipif(not ZOO.exists(), reason="the peers' published checkpoints are not here")
def test_the_table_is_what_the_peers_publish(monkeypatch):
    monkeypatch.syspath_prepend(REFERENCE)
    make_weight_rows = importlib.import_module("make_weight_rows")
    assert make_weight_rows.table(ZOO) == make_weight_rows.ROWS.read_text()


@pytest.mark.parametrize(
    ("name", "keywords", "words"),
    [
        ("resnet50", {"weights": "a1_in2k"}, "Did you mean 'a1_in1k'"),
        ("convnext_v2_atto", {"weights": "imagenet"}, "permissive license.*'fcmae_ft_in1k' .cc-by-nc-4.0"),
        ("vit_huge_patch14", {"weights": "imagenet"}, "'orig_in21k' .apache-2.0, 0 classes"),
        ("vit_huge_patch14", {"weights": "orig_in21k"}, "no classifier.*include_top=False"),
        ("lenet5", {"weights": "imagenet"}, "none at all"),
        (
            "mobilenet_v2",
            {"weights": "ra_in1k"},
            "needs the keywords norm_epsilon=1e-05, padding='symm",
        ),
        ("mobilenet_v2", {"weights": "imagenet", "width_multiplier": 0.4}, "width_multiplier=0.35"),
        (
            "efficientnet_b0",
            {"weights": "imagenet", "norm_epsilon": 1e-5},
            "the keywords norm_epsilon=0.001",
        ),
        ("swin_base", {"weights": "ms_in1k_384"}, "window_size=12"),
        ("resnet18", {"weights": "keras:ResNet50"}, "not a published checkpoint"),
        ("resnet18", {"weights": "https://download.pytorch.org/resnet18.pth"}, "not a published checkpoint"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_downloaded(name, keywords, words):
    with pytest.raises(ValueError, match=words):
        kvision.create_model(name, **keywords)
