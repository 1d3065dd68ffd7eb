"""Fast and Faster R-CNN on VGG-16: the papers' networks, and what they learn from."""

import itertools
import math

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from four_pictures import check_learned, four_pictures
from helpers import SMALL, built_without_memory, mostly_slow, randomized
from tflite import images, operators

import kvision
from kvision import detection
from kvision.average_precision import iou
from kvision.detection import with_losses
from kvision.errors import UserError
from kvision_export.convert import convert

FAST, FASTER = "fast_rcnn_vgg16", "faster_rcnn_vgg16"
TINY = {
    FAST: SMALL["vgg"] | {"proposals": 20},
    FASTER: SMALL["vgg"]
    | {"proposals": 20, "rpn_filters": 8, "anchor_sizes": (16, 32, 64), "proposal_candidates": 60},
}
LEARNED = {"filters": (16, 32, 64, 64, 64), "hidden_filters": 128, "norm": True, "norm_momentum": 0.8}
PIXELS = images(count=2, size=96)


def tiny(name, **keywords):
    columns = {"input_shape": (96, 96, 3), "num_classes": 3, "max_detections": 10, "score_threshold": 0.0}
    return kvision.create_model(name, **(columns | TINY[name] | keywords))


def given(name, count=20, seed=0):
    """The inputs of a network; the last two proposals are missing."""
    if name == FASTER:
        return {"image": PIXELS}
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 48, (2, count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 48, corners.shape)], -1)
    boxes[:, -2:] = 0
    return {"image": PIXELS, "proposals": boxes.astype("float32")}


def answers(model, inputs):
    return model(inputs if len(model.inputs) > 1 else inputs["image"])


def trained(model):
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.startswith(("rpn.head.", "roi_heads.box_predictor")):
            fan_in = math.prod(layer.kernel.shape[:-1])
            layer.kernel.assign(random.normal(0, fan_in**-0.5, layer.kernel.shape))
    randomized(model)
    return model


def test_parameters():
    """Those of the papers' layers: VGG-16's convolutions (Table 1, D), the hidden layers and the outputs."""
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    trunk = sum(9 * a * b + b for a, b in itertools.pairwise(widths))
    head = (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * (21 + 84)
    rpn = (9 * 512 + 1) * 512 + (512 + 1) * (9 + 36)
    for name, expected in ((FAST, trunk + head), (FASTER, trunk + head + rpn)):
        model = built_without_memory(name)
        assert sum(math.prod(v.shape) for v in model.trainable_variables) == expected
        assert kvision.info(name).variant.params == expected
        groups = kvision.depth_groups(model)
        paths = [f"backbone.features.{place}" for place in (0, 2, 5, 7)]  # conv1_1 to conv2_2
        assert groups[:4] == [[path] for path in paths]
        assert len(groups) == 13 + 1


@pytest.mark.parametrize("name", mostly_slow(TINY, "fast_rcnn_vgg16"))
def test_answers_saving_and_weights(name, tmp_path):
    model, inputs = trained(tiny(name)), given(name)
    found = answers(model, inputs)
    assert {key: value.shape for key, value in found.items()} == {
        "boxes": (2, 10, 4), "scores": (2, 10), "classes": (2, 10), "count": (2,),
    }  # fmt: skip
    assert (np.asarray(found["count"]) > 0).all()
    model.save(tmp_path / "model.keras")
    again = answers(keras.saving.load_model(tmp_path / "model.keras"), inputs)
    dynamic = tiny(name, input_shape=(None, None, 3), weights=kvision.weights.state_dict(model))
    whole = answers(dynamic, inputs)
    for key, value in found.items():
        np.testing.assert_array_equal(again[key], value)
        np.testing.assert_allclose(whole[key], value, rtol=1e-3, atol=1e-2)
    features = tiny(name, include_top=False)
    assert (len(features.inputs), features.output.shape) == (1, (None, 3, 3, 8))
    vgg = kvision.models.vgg16(**SMALL["vgg"], num_classes=3, input_shape=(96, 96, 3))
    states = kvision.weights.state_dict(vgg)
    standing = kvision.weights.state_dict(tiny(name, backbone_weights=states))
    for path in ("features.0.weight", "features.3.bias"):
        np.testing.assert_array_equal(standing[f"backbone.{path}"], states[path])


@pytest.mark.slow
def test_files_have_built_in_operators_and_agree():
    model = trained(tiny(FASTER))
    content = convert(model)
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    found = Interpreter(model_content=content).get_signature_runner()(image=PIXELS[:1])
    expected = model(PIXELS[:1])
    assert len(found) == len(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-2)


def test_losses_of_regions_are_the_papers():
    """By hand, from the outputs for all proposals and the objects' own boxes."""
    model, inputs = trained(tiny(FAST)), given(FAST)
    boxes = np.zeros((2, 3, 4), "float32")
    classes = np.full((2, 3), -1, "int32")
    boxes[0, :2], classes[0, :2] = inputs["proposals"][0, :2] + [2, 1, 3, -2], (2, 0)
    found = with_losses(model)(inputs | {"true_boxes": boxes, "true_classes": classes})
    wide = tiny(FAST, proposals=22)
    wide.set_weights(model.get_weights())
    regions = np.concatenate([inputs["proposals"], boxes[:, :2]], 1)
    raw = {
        key: np.asarray(x) for key, x in detection.raw(wide)({"image": PIXELS, "proposals": regions}).items()
    }
    class_losses, box_losses, drawn = [[], []], [[], []], 0
    for image in range(2):
        for place, region in enumerate(regions[image]):
            if (region[2:] <= region[:2]).any():
                continue
            overlaps = [
                iou(box[None], region[None])[0, 0] if number >= 0 else -1
                for box, number in zip(boxes[image], classes[image], strict=True)
            ]
            best, label = np.argmax(overlaps), 0
            if max(overlaps) >= 0.5:
                label = classes[image, best] + 1
            elif image == 0 and max(overlaps) < 0.1:  # the other image has no object
                continue
            drawn += 1
            logits = raw["class_logits"][image, place].astype(float)
            class_losses[image].append(np.log(np.exp(logits).sum()) - logits[label])
            if label:
                (left, top), size = region[:2], region[2:] - region[:2]
                box = boxes[image, best]
                sides = box[2:] - box[:2]
                shift = ((box[:2] + box[2:]) / 2 - (left, top) - size / 2) / size
                target = np.concatenate([shift / 0.1, np.log(sides / size) / 0.2])
                difference = np.abs(raw["box_regression"][image, place].reshape(4, 4)[label] - target)
                terms = np.where(difference < 1, difference**2 / 2, difference - 0.5)
                box_losses[image].append(terms.sum())
    assert 2 < len(box_losses[0]) <= 16
    assert len(class_losses[0]) > len(box_losses[0])
    for key, terms in (("class_loss", class_losses), ("box_loss", box_losses)):
        expected = [2 * sum(of_image) / drawn for of_image in terms]
        np.testing.assert_allclose(found[key], expected, rtol=1e-4, err_msg=key)


def test_faster_rcnn_learns_from_more_proposals_than_it_detects_with():
    network = with_losses(tiny(FASTER))
    assert network.get_layer("proposals").count == 20
    assert network.get_layer("learned_proposals").count == 2000
    assert network.get_layer("sampled_regions").count == 128
    objects = {"true_boxes": np.zeros((2, 1, 4)), "true_classes": np.full((2, 1), -1)}
    terms = {key: value for key, value in network(given(FASTER) | objects).items() if "loss" in key}
    assert {*terms} == {"rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss"}
    assert all(np.isfinite(value).all() for value in terms.values())
    assert (np.asarray(terms["class_loss"]) > 0).all()  # all is background


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_pictures_are_learned(name):
    keras.utils.set_random_seed(0)
    columns = LEARNED | {"stride": 8, "proposals": 40, "score_threshold": 0.05, "dropout_rate": 0.0}
    model = tiny(name, **(columns | ({"rpn_filters": 64} if name == FASTER else {})))
    pictures, boxes, classes = four_pictures()
    inputs = {"image": pictures}
    if name == FAST:
        random = np.random.default_rng(0)
        near = np.repeat(boxes, 6, 1) * (np.repeat(classes, 6, 1) >= 0)[..., None]
        near += random.uniform(-6, 6, near.shape) * near.any(-1, keepdims=True)
        corners = random.uniform(0, 60, (4, 16, 2))
        far = np.concatenate([corners, corners + random.uniform(16, 36, corners.shape)], -1)
        inputs["proposals"] = np.clip(np.concatenate([near, far], 1), 0, 96).astype("float32")
    check_learned(model, inputs, boxes, classes, steps=120)


def test_a_stride_that_no_map_has():
    with pytest.raises(UserError, match="`stride` must be 2, 4, 8, 16 or 32; got 12"):
        tiny(FAST, stride=12)
