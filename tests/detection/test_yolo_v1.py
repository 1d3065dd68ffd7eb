"""YOLO and Fast YOLO: sizes, the paper's loss, decoding, learning, files."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from helpers import built_without_memory
from tflite import images as smooth_images, operators

import kvision
from kvision import detection
from kvision.average_precision import AveragePrecision
from kvision.blocks import ConvRow
from kvision.data.sources.shapes import draw
from kvision.detection._yolo_v1_loss import yolo_v1_losses
from kvision.errors import UserError
from kvision_export.convert import convert

HIDDEN = {"yolo_v1": (64,), "yolo_v1_fast": (32, 64)}
PIXELS = smooth_images(count=2)


def tiny(name="yolo_v1_fast", **keywords):
    columns = {"width_multiplier": 0.0625, "hidden_filters": HIDDEN[name]}
    shape = {"input_shape": (64, 64, 3), "num_classes": 3}
    return kvision.create_model(name, **(shape | columns | keywords))


@pytest.mark.parametrize(
    ("name", "filters", "hidden"),
    [
        (  # Figure 3
            "yolo_v1",
            [(7, 64), (3, 192), (1, 128), (3, 256), (1, 256), (3, 512)]
            + [(1, 256), (3, 512)] * 4 + [(1, 512), (3, 1024)]
            + [(1, 512), (3, 1024)] * 2 + [(3, 1024)] * 4,
            [4096],
        ),
        ("yolo_v1_fast", [(3, 16 * 2**i) for i in range(7)] + [(3, 1024)] * 2, [256, 4096]),
    ],
)  # fmt: skip
def test_parameters(name, filters, hidden):
    model = built_without_memory(name)
    kernels = [
        (layer.kernel.shape[0], layer.filters)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert kernels == filters
    count, channels = 0, 3
    for size, width in filters:
        count, channels = count + (size**2 * channels + 1) * width, width
    units = 7 * 7 * 1024
    for width in (*hidden, 7 * 7 * 30):
        count, units = count + (units + 1) * width, width
    assert count == kvision.info(name).variant.params
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == count
    assert model.get_layer("trunk").output.shape == (None, 7, 7, 1024)
    taps = {f"c{level}": (None, 448 // 2**level, 448 // 2**level) for level in range(1, 7)}
    assert {tap: model.get_layer(tap).output.shape[:3] for tap in taps} == taps


def loop_over_the_formula(outputs, boxes, classes, height, width):
    """Equation 3 for one image, term by term."""
    grid = math.isqrt(outputs["boxes"].shape[0])
    each = outputs["boxes"].shape[1]
    losses = dict.fromkeys(("box_loss", "confidence_loss", "class_loss"), 0.0)
    objects = {}
    for box, label in zip(boxes / [width, height, width, height], classes, strict=True):
        if label >= 0:
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            objects.setdefault((int(y * grid), int(x * grid)), (box, label))
    for row in range(grid):
        for place in range(grid):
            predicted = outputs["boxes"][row * grid + place]
            confidences = outputs["confidences"][row * grid + place]
            responsible, overlap = None, None
            if (row, place) in objects:
                box, label = objects[row, place]
                overlaps = []
                for x, y, w, h in predicted:
                    x, y, w, h = (place + x) / grid, (row + y) / grid, w**2, h**2
                    across = min(box[2], x + w / 2) - max(box[0], x - w / 2)
                    down = min(box[3], y + h / 2) - max(box[1], y - h / 2)
                    shared = max(across, 0) * max(down, 0)
                    area = (box[2] - box[0]) * (box[3] - box[1])
                    overlaps.append(shared / (area + w * h - shared))
                responsible = int(np.argmax(overlaps))
                overlap = overlaps[responsible]
                x, y, w, h = predicted[responsible]
                true_x = (box[0] + box[2]) / 2 * grid - place
                true_y = (box[1] + box[3]) / 2 * grid - row
                losses["box_loss"] += 5 * ((x - true_x) ** 2 + (y - true_y) ** 2)
                losses["box_loss"] += 5 * (w - math.sqrt(box[2] - box[0])) ** 2
                losses["box_loss"] += 5 * (h - math.sqrt(box[3] - box[1])) ** 2
                for number, value in enumerate(outputs["classes"][row * grid + place]):
                    losses["class_loss"] += (value - (number == label)) ** 2
            for i in range(each):
                if i == responsible:
                    losses["confidence_loss"] += (confidences[i] - overlap) ** 2
                else:
                    losses["confidence_loss"] += 0.5 * confidences[i] ** 2
    return losses


def test_the_loss_is_the_papers_formula():
    random = np.random.default_rng(0)
    outputs = {
        "boxes": random.uniform(0.1, 0.9, (3, 49, 2, 4)).astype("float32"),
        "confidences": random.normal(0.3, 0.5, (3, 49, 2)).astype("float32"),
        "classes": random.normal(0.3, 0.5, (3, 49, 4)).astype("float32"),
    }
    starts = random.uniform(0, 90, (3, 8, 2))
    boxes = np.concatenate([starts, starts + random.uniform(5, 60, starts.shape)], -1).astype("float32")
    boxes[0, 1] = boxes[0, 0] + [-1, -1, 1, 1]  # in the same cell
    boxes[1, 0] = 100, 60, 160, 120  # with its centre on the corner of a cell
    classes = random.integers(0, 4, (3, 8))
    classes[:, 5:], classes[2] = -1, -1
    found = yolo_v1_losses(outputs, boxes, classes.astype("int32"), height=140, width=160)
    for number in range(3):
        of_image = {key: value[number] for key, value in outputs.items()}
        expected = loop_over_the_formula(of_image, boxes[number], classes[number], 140, 160)
        for key, value in expected.items():
            assert found[key].shape == (3,)
            assert float(found[key][number]) == pytest.approx(value, rel=1e-4), (number, key)


def test_detections_are_decoded_cell_by_cell():
    model = tiny(grid=5, input_shape=(64, 128, 3), iou_threshold=1.0, score_threshold=0.0)
    pixels = smooth_images(count=1, size=128)[:, :64]
    raw = {key: value.numpy()[0] for key, value in detection.raw(model)(pixels).items()}
    assert {key: value.shape for key, value in raw.items()} == {
        "boxes": (25, 2, 4), "confidences": (25, 2), "classes": (25, 3),
    }  # fmt: skip
    found = {key: value.numpy()[0] for key, value in model(pixels).items()}
    expected = []
    for cell, classes in enumerate(raw["classes"]):
        for (x, y, w, h), confidence in zip(raw["boxes"][cell], raw["confidences"][cell], strict=True):
            x, y, w, h = (cell % 5 + x) / 5 * 128, (cell // 5 + y) / 5 * 64, w**2 * 128, h**2 * 64
            for label, probability in enumerate(classes):
                score = min(max(confidence, 0), 1) * min(max(probability, 0), 1)
                if score > 0:
                    expected.append((score, label, x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    expected = np.array(sorted(expected, reverse=True)[:100])
    count = int(found["count"])
    assert count == len(expected) > 10
    np.testing.assert_allclose(found["scores"][:count], expected[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(found["classes"][:count], expected[:, 1])
    np.testing.assert_allclose(found["boxes"][:count], expected[:, 2:], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo_v1", "yolo_v1_fast"])
def test_saving_files_and_gradients(name, tmp_path):
    model = tiny(name, score_threshold=0.0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model(PIXELS)
    assert np.min(expected["count"]) > 0
    for key, value in again(PIXELS).items():
        np.testing.assert_array_equal(value, expected[key])
    content = convert(model)
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    outputs = Interpreter(model_content=content).get_signature_runner()(image=PIXELS[:1])
    for key, value in outputs.items():
        np.testing.assert_allclose(value, expected[key][:1], rtol=1e-4, atol=1e-3)
    with tf.GradientTape() as tape:
        loss = sum(keras.ops.sum(y) for y in detection.raw(model)(PIXELS, training=True).values())
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient.numpy().any(), variable.path


@pytest.mark.slow
def test_pictures_are_learned():
    keras.utils.set_random_seed(0)
    model = tiny(input_shape=(96, 96, 3), width_multiplier=0.125, dropout_rate=0.0)
    images, boxes, classes = as_arrays([draw(0, index) for index in range(4)])
    batch = {"image": images, "true_boxes": boxes, "true_classes": classes}
    step = training_step(model, keras.optimizers.Adam(2e-3))
    losses = [float(step(batch)) for _ in range(100)]
    assert losses[-1] < losses[0] / 20
    found = model(images)
    right = np.asarray(kvision.boxes.iou(boxes, found["boxes"])) > 0.5
    right &= classes[:, :, None] == np.asarray(found["classes"])[:, None]
    right &= np.asarray(found["scores"])[:, None] > 0.3
    assert right.any(-1).sum() >= 0.8 * (classes >= 0).sum()


def test_weights_fit_other_classes():
    model = tiny()
    weights = kvision.weights.state_dict(model)
    assert detection.raw(tiny(num_classes=None, weights=weights)).output["classes"].shape == (None, 49, 3)
    other = kvision.weights.state_dict(tiny(num_classes=5, weights=weights))
    for key, value in other.items():
        assert key.startswith("connected.classes") or np.array_equal(value, weights[key]), key
    with pytest.raises(UserError, match="fixed image size: give `input_shape`"):
        tiny(input_shape=(None, None, 3))


@pytest.mark.slow
def test_shapes_are_found_in_other_pictures():
    """AP50 on 150 pictures of one or two shapes, after 25 epochs of 4,000 others; about five minutes."""
    keras.utils.set_random_seed(0)
    convolutions = (*(ConvRow(filters, pool=(2, 2)) for filters in (16, 32, 64, 128)), *(ConvRow(128),) * 2)
    columns = {"rows": convolutions, "hidden_filters": (256, 512), "norm": True, "dropout_rate": 0.25}
    model = kvision.create_model("yolo_v1_fast", input_shape=(96, 96, 3), num_classes=3, **columns)
    images, boxes, classes = few_shapes(4150)
    steps = 4000 // 32
    rate = keras.optimizers.schedules.CosineDecay(0.0, 25 * steps, warmup_target=2e-3, warmup_steps=steps)
    step = training_step(model, keras.optimizers.AdamW(rate, weight_decay=0.01, clipnorm=10.0))
    random = np.random.default_rng(0)
    for _ in range(25):
        for places in random.permutation(4000).reshape(steps, 32):
            pixels, seen = images[places], boxes[places]
            mirrored = random.random((32, 1, 1)) < 0.5
            left, top, right, bottom = np.moveaxis(seen, -1, 0)
            reversed_ = np.stack([96 - right, top, 96 - left, bottom], -1)
            batch = {
                "image": np.where(mirrored[..., None], pixels[:, :, ::-1], pixels),
                "true_boxes": np.where(mirrored, reversed_, seen),
                "true_classes": classes[places],
            }
            step(batch)
    precision, answers = AveragePrecision(3), model.predict(images[4000:], verbose=0)
    for number, count in enumerate(answers.pop("count")):
        found = {key: value[number, :count] for key, value in answers.items()}
        real = classes[4000 + number] >= 0
        precision.add(
            found["boxes"], found["scores"], found["classes"],
            boxes[4000 + number, real], classes[4000 + number, real],
        )  # fmt: skip
    assert precision.result().means["ap50"] > 0.8


def few_shapes(count):
    """Pictures of one or two shapes, and the boxes and classes of these."""
    pictures = (draw(7, index) for index in itertools.count())
    return as_arrays(list(itertools.islice((p for p in pictures if len(p.shapes) <= 2), count)))


def as_arrays(pictures):
    """Images, and the boxes and classes of their shapes."""
    most = max(len(picture.shapes) for picture in pictures)
    boxes, classes = (
        np.zeros((len(pictures), most, 4), "float32"),
        np.full((len(pictures), most), -1, "int32"),
    )
    for place, picture in enumerate(pictures):
        for i, shape in enumerate(picture.shapes):
            boxes[place, i] = shape.left, shape.top, shape.right, shape.bottom
            classes[place, i] = shape.label - 1
    return np.stack([picture.image for picture in pictures]).astype("float32"), boxes, classes


def training_step(model, optimizer):
    """The function from a batch to its loss, after which the model has learned from it."""
    variables, network = model.trainable_variables, detection.with_losses(model)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(batch):
        with tf.GradientTape() as tape:
            terms = network(batch, training=True)
            loss = tf.add_n([tf.reduce_mean(value) for key, value in terms.items() if "loss" in key])
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step
