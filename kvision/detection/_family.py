"""The parts that all detectors share."""

import dataclasses
import inspect
from typing import ClassVar

import keras

from kvision._nested import check_model
from kvision.errors import UserError
from kvision.keras_internals import inputs_of, producer
from kvision.models._family import Family
from kvision.networks import image_of
from kvision.spec import column

DOC = """Builds {name}: {params:,} trainable parameters, {size} x {size} pixels as published.

{summary}

Args:
    include_top: whether to detect; without it, the network ends in the backbone's last feature map.
    weights: None for fresh weights; a tag of `kvision.list_weights("{name}.*")`; or a source of
        `kvision.weights.load`. They are adapted to other classes, which is logged; the classifier is only
        fresh where `num_classes` is given.
    input_shape: `(height, width, channels)`; height and width may be None for any size.
    pooling: without a top, None for the feature map, "avg" or "max" for a vector.
    num_classes: that are told apart; by default those of the weights.
    preprocess: a `kvision.Preprocess`, where the normalisation is not that of the weights or the network.
    name: of the model.
    allow_nonfinite: whether weights may be NaN or infinity.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` from pixels in [0, 255], `(batch, height, width, channels)`, to the dict of
    `kvision.layers.NonMaxSuppression`: "boxes" `(batch, max_detections, 4)`, xyxy in pixels, "scores",
    "classes" and "count". `kvision.detection.raw` has the outputs to train. Without a top, to the feature
    map or its pooled vector.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit, or weights that are NaN, of another network or other columns.
    OSError: weights that are not there or cannot be downloaded.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionRow:
    """Columns of all detectors.

    Attributes:
        max_detections: in an image.
        score_threshold: that the scores of detections exceed.
        iou_threshold: intersection over union above which the worse of two boxes of a class is dropped.
    """

    max_detections: int = column(100, free=True)
    score_threshold: float = column(0.05, free=True)
    iou_threshold: float = column(0.5, free=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionFamily(Family):
    """A table of networks that find objects.

    The `decoder` ends in a layer `detections`, a `NonMaxSuppression`. A layer `decode` before it takes the
    raw outputs, each of a layer of the output's name, and the image.
    """

    doc: ClassVar[str] = DOC

    task: str = "detection"

    def keywords(self) -> list[inspect.Parameter]:
        return [keyword for keyword in super().keywords() if keyword.name != "classifier_activation"]

    def _defaults(self, name) -> dict:
        return {"name": name}

    def build(self, variant, **keywords) -> keras.Model:
        if "classifier_activation" in keywords:
            self._override(next(iter(self.variants.values())), {"classifier_activation": None})  # raises
        return Family.build(self, variant, **keywords)

    def _answers(self, network, variant, num_classes, activation):
        return self._outputs(network, variant, num_classes)


def with_proposals(network: keras.Model, count: int) -> keras.Model:
    """A network with `count` proposals of each image as a second input, which its decoder reads."""
    proposals = keras.Input((count, 4), dtype="float32", name="proposals")
    keras.layers.Identity()(proposals)  # Keras 3.11 refuses inputs that nothing reads
    return keras.Model({"image": network.input, "proposals": proposals}, network.output)


def raw(model: keras.Model) -> keras.Model:
    """The detector up to what its loss takes: the raw outputs in front of decoding.

    Args:
        model: a detector of kvision, with its top. The weights are shared with it.

    Returns:
        A model from the same pixels to a dict of raw outputs by name.

    Raises:
        ValueError: the model has no layer `decode`.
    """
    check_model(model)
    decode = next((layer for layer in model.layers if layer.name == "decode"), None)
    if decode is None:
        raise UserError(f"`model` must be a detector of kvision; {model.name} has no layer 'decode'.")
    image = image_of(model)
    tensors = [tensor for tensor in inputs_of(decode, 0) if tensor is not image]
    return keras.Model(model.input, {producer(tensor)[0].name: tensor for tensor in tensors}, name=model.name)
