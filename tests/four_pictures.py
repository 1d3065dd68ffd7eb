"""Four drawn pictures that a detector learns by heart."""

import keras
import numpy as np
import tensorflow as tf

from kvision import boxes as box_math
from kvision.data.sources.shapes import draw
from kvision.detection import with_losses


def four_pictures():
    """Images `(4, 96, 96, 3)`, and their boxes and classes, filled up to four."""
    pictures = [draw(0, index) for index in range(4)]
    boxes, classes = np.zeros((4, 4, 4), "float32"), np.full((4, 4), -1, "int32")
    for place, picture in enumerate(pictures):
        for i, shape in enumerate(picture.shapes):
            boxes[place, i] = shape.left, shape.top, shape.right, shape.bottom
            classes[place, i] = shape.label - 1
    return np.stack([picture.image for picture in pictures]).astype("float32"), boxes, classes


def check_learned(model, inputs, boxes, classes, steps):
    """Asserts that a detector finds the objects after some steps on the pictures."""
    variables, network = model.trainable_variables, with_losses(model)
    batch = inputs | {"true_boxes": boxes, "true_classes": classes}
    optimizer = keras.optimizers.Adam(3e-3, global_clipnorm=1.0)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            outputs = network(batch, training=True)
            loss = tf.add_n([tf.reduce_mean(value) for key, value in outputs.items() if "loss" in key])
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    losses = [float(step()) for _ in range(steps)]
    assert np.mean(losses[-5:]) < losses[0] / 5
    answers = model(inputs if len(model.inputs) > 1 else inputs["image"])
    found = {key: np.asarray(value) for key, value in answers.items()}
    right = np.asarray(box_math.iou(boxes, found["boxes"])) > 0.5
    right &= classes[:, :, None] == found["classes"][:, None]
    right &= found["scores"][:, None] > 0.3
    assert right.any(-1).sum() >= 0.8 * (classes >= 0).sum()
