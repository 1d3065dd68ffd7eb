"""The losses of detectors: torchvision's values, and what networks learn from them."""

import json
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from four_pictures import check_learned, four_pictures
from golden import formula_image, formula_weights
from helpers import SMALL, mostly_slow

import kvision
from kvision.detection import with_losses
from kvision.detection._faster_rcnn_loss import _Sampling, rcnn_training
from kvision.errors import UserError

ENTRIES = json.loads((Path(__file__).parents[1] / "reference" / "detectors.json").read_text())
SSD, RCNN = ENTRIES
LOSSES = {  # torchvision's names
    SSD: {"class_loss": "classification", "box_loss": "bbox_regression"},
    RCNN: {
        "rpn_class_loss": "loss_objectness",
        "rpn_box_loss": "loss_rpn_box_reg",
        "class_loss": "loss_classifier",
        "box_loss": "loss_box_reg",
    },
}
TINY = {  # columns, and the steps in which the network learns four pictures
    "ssdlite320_mobilenet_v3_large": (
        {"width_multiplier": 0.25, "extra_filters": (64, 32, 32, 32), "norm_momentum": 0.8},
        50,
    ),
    "fasterrcnn_resnet50_fpn": (
        SMALL["resnet"]
        | {"filters": 16, "pyramid_filters": 32, "hidden_filters": 64}
        | {"proposals": 50, "proposal_candidates": 50},
        130,
    ),
}


@pytest.mark.parametrize("name", mostly_slow(LOSSES, RCNN))
def test_losses_are_torchvisions(name):
    entry = ENTRIES[name]
    losses = entry["losses"]
    model = kvision.create_model(name, input_shape=losses["input"])
    kvision.weights.load(model, formula_weights(entry["names"], entry["gain"]))
    image = formula_image(*losses["input"][:2]).astype("float32")
    count = len(losses["boxes"])
    boxes, classes = np.zeros((2, count + 2, 4), "float32"), np.full((2, count + 2), -1, "int32")
    boxes[0, 1:-1], classes[0, 1:-1] = losses["boxes"], np.array(losses["labels"]) - 1
    batch = {"image": np.stack([image, image[:, ::-1]]), "true_boxes": boxes, "true_classes": classes}
    ours = with_losses(model)(batch)
    for key, theirs in LOSSES[name].items():
        assert ours[key].shape == (2,)
        np.testing.assert_allclose(np.mean(ours[key]), losses["expected"][theirs], rtol=1e-5, err_msg=key)
    if name == RCNN:
        found = model(batch["image"])
        for key, value in found.items():
            np.testing.assert_array_equal(ours[key], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_pictures_are_learned(name):
    columns, steps = TINY[name]
    keras.utils.set_random_seed(0)
    model = kvision.create_model(name, input_shape=(96, 96, 3), num_classes=3, **columns)
    images, boxes, classes = four_pictures()
    check_learned(model, {"image": images}, boxes, classes, steps)


@pytest.mark.parametrize(("positives", "negatives", "expected"), [
    (70, 200, (16, 48)), (10, 200, (10, 54)), (0, 200, (0, 64)), (30, 20, (16, 20)),
])  # fmt: skip
def test_sampling(positives, negatives, expected):
    random = np.random.default_rng(0)
    kinds = random.permutation(np.repeat([1, 0, -1], [positives, negatives, 30]))
    overlaps = random.uniform(size=kinds.shape).astype("float32")
    layer = _Sampling(0)

    def sample(training):
        places, drawn = layer.sample(
            tf.constant(kinds[None] == 1), tf.constant(kinds[None] == 0), tf.constant(overlaps[None]),
            64, 0.25, training,
        )  # fmt: skip
        places, drawn = np.asarray(places)[0], np.asarray(drawn)[0]
        assert set(places) == set(places[drawn])
        chosen = places[drawn]
        assert len(set(chosen)) == len(chosen)
        assert ((kinds[chosen] == 1).sum(), (kinds[chosen] == 0).sum()) == expected
        return set(chosen)

    assert sample(True) != sample(True) or expected == (positives, negatives)
    best = sample(False)
    for kind in (1, 0):
        of_kind = {place for place in best if kinds[place] == kind}
        places = np.flatnonzero(kinds == kind)
        assert of_kind == set(places[np.argsort(-overlaps[places])][: len(of_kind)])


@pytest.mark.slow
def test_training_shares_variables_and_norms_see_sampled_regions_alone():
    columns = TINY["fasterrcnn_resnet50_fpn"][0]
    model = kvision.create_model("fasterrcnn_resnet50_fpn_v2", input_shape=(96, 96, 3), **columns)
    count = len(model.variables)
    network = rcnn_training(model)
    assert {id(v) for v in network.trainable_variables} == {id(v) for v in model.trainable_variables}
    assert len(model.variables) == count == len(network.variables) - 2  # seeds
    norm = model.get_layer("roi_heads.box_head.0.1")
    batch = {
        "image": np.zeros((2, 96, 96, 3)),
        "true_boxes": np.zeros((2, 1, 4)),
        "true_classes": np.zeros((2, 1), int),
    }
    with mock.patch.object(norm, "call", wraps=norm.call) as call:
        network(batch, training=True)
    assert sorted(bool(kept.kwargs["training"]) for kept in call.call_args_list) == [False, True]


def test_other_models_are_refused():
    with pytest.raises(UserError, match="must be a Fast or Faster R-CNN"):
        rcnn_training(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
