"""The network that is trained: a detector that also answers with the terms of its loss."""

from functools import partial

import keras

from kvision.detection._family import raw
from kvision.detection._faster_rcnn_loss import rcnn_training
from kvision.detection._simota import yolox_losses
from kvision.detection._ssd_loss import ssd_losses
from kvision.detection._staged import DecodeStages
from kvision.detection._stages import finetuning
from kvision.detection._yolo_v1 import DecodeGrid
from kvision.detection._yolo_v1_loss import yolo_v1_losses
from kvision.layers import DecodeCells


class Losses(keras.layers.Layer):
    """Terms of a detector's loss, float32 `(batch,)` by name, from its raw outputs and the objects."""

    def __init__(self, losses, **keywords):
        super().__init__(autocast=False, **keywords)
        self.terms = losses

    def call(self, outputs, boxes, classes):
        return self.terms(outputs, boxes, classes)


def with_losses(model: keras.Model) -> keras.Model:
    """The network that is trained, over the layers and weights of a detector.

    Args:
        model: a detector of kvision, with its top and a fixed image size.

    Returns:
        A model from a dict of "image", the "proposals" of a network that takes them, "true_boxes"
        `(batch, most, 4)`, xyxy in pixels, and "true_classes", int32 `(batch, most)`, -1 where there is no
        object, to a dict of the terms of the loss, float32 `(batch,)`, whose names end in "_loss", and of the
        detections. It cannot be saved; the detector can.

    Raises:
        ValueError: see `raw`.
    """
    undecoded = raw(model)
    if isinstance(model.get_layer("decode"), DecodeStages):
        return finetuning(model)
    if "proposals" in undecoded.output:
        return rcnn_training(model)
    boxes = keras.Input((None, 4), name="true_boxes")
    classes = keras.Input((None,), dtype="int32", name="true_classes")
    terms = Losses(_losses_of(model), name="losses")(undecoded.output, boxes, classes)
    inputs = {"image": model.input, "true_boxes": boxes, "true_classes": classes}
    return keras.Model(inputs, terms | model.output, name=model.name)


def _losses_of(model):
    """The function from raw outputs, boxes and classes to the terms of the network's loss."""
    decode, (height, width) = model.get_layer("decode"), model.input_shape[1:3]
    if isinstance(decode, DecodeGrid):
        return partial(yolo_v1_losses, height=height, width=width)
    if not isinstance(decode, DecodeCells):
        return ssd_losses
    return partial(yolox_losses, height=height, width=width, strides=decode.strides)
