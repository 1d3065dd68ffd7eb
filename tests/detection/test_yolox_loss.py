"""YOLOX' loss: SimOTA by the paper's definition, box by box, and that it teaches to find shapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_yolox

from kvision import boxes as box_math, detection
from kvision.data.sources.shapes import draw

SIZE = 64
CELLS = [(x, y, s) for s in (8, 16, 32) for y in range(SIZE // s) for x in range(SIZE // s)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = np.prod(np.maximum(sides, 0))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def decoded(raw):
    corners = np.array([(x * s, y * s) for x, y, s in CELLS])
    strides = np.array([[s] for _, _, s in CELLS])
    centres, half = corners + raw[:, :2] * strides, np.exp(raw[:, 2:]) * strides / 2
    return np.concatenate([centres - half, centres + half], -1)


def assignment(predicted, probabilities, boxes, labels):
    """The box of each cell, or -1."""
    inside, near = np.zeros((2, len(boxes), len(CELLS)), bool)
    for i, (left, top, right, bottom) in enumerate(boxes):
        for j, (x, y, s) in enumerate(CELLS):
            x, y = (x + 0.5) * s, (y + 0.5) * s
            inside[i, j] = left < x < right and top < y < bottom
            near[i, j] = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)) < 2.5 * s
    candidates = [j for j in range(len(CELLS)) if (inside[:, j] | near[:, j]).any()]
    overlaps, costs = np.zeros((2, len(boxes), len(candidates)))
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        for place, j in enumerate(candidates):
            overlaps[i, place] = overlap(box, predicted[j])
            p = np.sqrt(probabilities[j])
            of_class = -sum(np.log(p[c] if c == label else 1 - p[c]) for c in range(len(p)))
            outside = 1e5 * (not (inside[i, j] and near[i, j]))
            costs[i, place] = of_class - 3 * np.log(overlaps[i, place] + 1e-8) + outside
    takers = [[] for _ in candidates]
    for i in range(len(boxes)):
        count = max(int(np.sort(overlaps[i])[-10:].sum()), 1)
        for place in np.argsort(costs[i])[:count]:
            takers[place].append(i)
    owners = np.full(len(CELLS), -1)
    for place, j in enumerate(candidates):
        if takers[place]:
            owners[j] = takers[place][0] if len(takers[place]) == 1 else costs[:, place].argmin()
    return owners


def cross_entropy(target, logit):
    p = sigmoid(logit)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum()


def example():
    """Raw outputs of three images near their boxes, the boxes, and labels: four boxes, two, none."""
    random = np.random.default_rng(3)
    raw = {
        "boxes": random.normal(0.5, 0.4, (3, len(CELLS), 4)),
        "objectness": random.normal(0, 1, (3, len(CELLS))),
        "classes": random.normal(0, 1, (3, len(CELLS), 3)),
    }
    boxes = np.zeros((3, 5, 4))
    boxes[0, :4] = [[4, 4, 40, 36], [8, 6, 42, 40], [30, 30, 62, 63], [50, 2, 58, 9]]
    boxes[1, :2] = [[0, 0, 64, 64], [20, 20, 26, 25]]
    labels = np.array([[0, 2, 1, 1, -1], [2, 0, -1, -1, -1], [-1] * 5])
    return raw, boxes, labels


def test_terms_are_the_papers():
    raw, boxes, labels = example()
    expected = np.zeros((3, 4))
    owners = []
    for image in range(3):
        real = labels[image] >= 0
        part = {key: value[image] for key, value in raw.items()}
        predicted = decoded(part["boxes"])
        probabilities = sigmoid(part["classes"]) * sigmoid(part["objectness"])[:, None]
        owners.append(assignment(predicted, probabilities, boxes[image][real], labels[image][real]))
        for j, ((x, y, s), owner) in enumerate(zip(CELLS, owners[-1], strict=True)):
            expected[image, 1] += cross_entropy(float(owner >= 0), part["objectness"][j])
            if owner >= 0:
                target = boxes[image, owner]
                shared = overlap(target, predicted[j])
                expected[image, 0] += 5 * (1 - shared**2)
                expected[image, 2] += cross_entropy(
                    np.eye(3)[labels[image, owner]] * shared, part["classes"][j]
                )
                centre, sides = (target[:2] + target[2:]) / 2, target[2:] - target[:2]
                wanted = np.concatenate([centre / s - (x, y), np.log(sides / s)])
                expected[image, 3] += np.abs(part["boxes"][j] - wanted).sum()
    assert {*owners[0]} == {-1, 0, 1, 2, 3}
    assert max(np.bincount(owners[1] + 1)[1:]) > 1
    expected /= (np.array(owners) >= 0).sum() / 3
    losses = detection.yolox_losses(
        {key: value.astype("float32") for key, value in raw.items()},
        boxes.astype("float32"),
        labels.astype("int32"),
        height=SIZE,
        width=SIZE,
        l1=True,
    )
    assert [*losses] == ["box_loss", "objectness_loss", "class_loss", "l1_loss"]
    np.testing.assert_allclose(np.stack([*losses.values()], 1), expected, rtol=1e-4, atol=1e-5)


def test_a_batch_without_boxes_teaches_that_there_is_nothing():
    raw, boxes, labels = example()
    tensors = {key: tf.Variable(value[2:], dtype="float32") for key, value in raw.items()}
    with tf.GradientTape() as tape:
        losses = detection.yolox_losses(
            tensors,
            boxes[2:].astype("float32"),
            labels[2:].astype("int32"),
            height=SIZE,
            width=SIZE,
        )
        total = sum(losses.values())
    assert losses["box_loss"] == losses["class_loss"] == 0
    gradients = tape.gradient(total, tensors)
    assert np.min(gradients["objectness"]) > 0
    assert not np.any(gradients["boxes"])
    assert not np.any(gradients["classes"])


def test_predictions_out_of_all_bounds_are_assigned_too():
    raw, boxes, labels = example()
    raw["boxes"][..., 2:] += 200
    tensors = {key: value.astype("float32") for key, value in raw.items()}
    losses = detection.yolox_losses(
        tensors, boxes.astype("float32"), labels.astype("int32"), height=SIZE, width=SIZE
    )
    assert np.isfinite([*losses.values()]).all()
    assert np.all(losses["box_loss"][:2] > 1)


@pytest.mark.slow
def test_it_learns_to_find_shapes():
    """Eight pictures by heart: each shape is found, and next to nothing else."""
    keras.utils.set_random_seed(0)
    pictures = [draw(0, index) for index in range(8)]
    pixels = np.stack([picture.image for picture in pictures]).astype("float32")
    boxes, labels = np.zeros((8, 4, 4), "float32"), np.full((8, 4), -1, "int32")
    for i, picture in enumerate(pictures):
        for j, shape in enumerate(picture.shapes):
            boxes[i, j] = shape.left, shape.top, shape.right, shape.bottom
            labels[i, j] = shape.label - 1
    model = tiny_yolox(
        "yolox_s",
        input_shape=pixels.shape[1:],
        width_multiplier=0.25,
        norm_momentum=0.8,
        score_threshold=0.3,
    )
    network, optimizer = detection.raw(model), keras.optimizers.Adam(2e-3)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = network(pixels, training=True)
            terms = detection.yolox_losses(outputs, boxes, labels, height=96, width=96)
            loss = keras.ops.mean(sum(terms.values()))
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    losses = [float(step()) for _ in range(200)]
    assert losses[-1] < losses[0] / 3
    found = {key: np.asarray(value) for key, value in model(pixels).items()}
    wrong = 0
    for i in range(8):
        count, real = found["count"][i], labels[i] >= 0
        overlaps = np.asarray(box_math.iou(boxes[i][real], found["boxes"][i, :count]))
        match = (overlaps > 0.5) & (labels[i][real][:, None] == found["classes"][i, :count])
        assert match.any(1).all()
        wrong += count - np.sum(real)
    assert wrong <= 2
