"""R-CNN (Girshick et al. 2014) and SPPNet (He et al. 2014), which are given proposals and learn in stages.

R-CNN (https://arxiv.org/abs/1311.2524) warps each proposal to the input of AlexNet. SPPNet
(https://arxiv.org/abs/1406.4729) computes the feature maps of Zeiler and Fergus' network once an image, and
pools a pyramid of bins of each proposal. Behind the hidden layers both have a linear SVM for each class, and
a linear regression of the boxes from the last pooled features, see `kvision.detection.fit_stages`.

Departures: SPPNet sees an image at one scale, that of its input; regions round to its map as in Fast R-CNN.
R-CNN's SVMs see the outputs of the second hidden layer in inference mode, as SPPNet's.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kvision import boxes as box_math
from kvision.blocks import ConvRow, classic_stages, hidden_layers
from kvision.detection._family import DetectionFamily, DetectionRow, with_proposals
from kvision.errors import UserError
from kvision.layers import NonMaxSuppression, RoIPyramidPool, RoIWarp
from kvision.models._alexnet import KRIZHEVSKY, POOL
from kvision.spec import Variant, column

PUBLISHED_CROP, CONTEXT = 227, 16  # side of a crop in pixels, and its frame (Girshick et al., section 2.1)
STRIDE = 16  # of the map that SPPNet pools from
CLASSIFIER = "classifier"  # of fine-tuning
ZF5 = (  # He et al., table 1; the padding is that of the authors' code
    ConvRow(96, 7, 2, 3, 1, True, POOL),
    ConvRow(256, 5, 2, 2, 1, True, POOL),
    ConvRow(384, 3, 1, 1),
    ConvRow(384, 3, 1, 1),
    ConvRow(256, 3, 1, 1),
)


@dataclass(frozen=True, kw_only=True)
class StagedRow(DetectionRow, Variant):
    """Columns that both have.

    Attributes:
        rows: the convolutions.
        width_multiplier: of their filters.
        hidden_filters: units of the two hidden dense layers.
        proposals: in an image, that the network is given. Memory grows with it.
        candidates: pairs of box and class, the best of which are compared.
        box_regression: whether detections are regressed boxes, and not the proposals themselves.
    """

    rows: tuple[ConvRow, ...] = column(fixed=True)
    width_multiplier: float = 1.0
    hidden_filters: int = 4096
    proposals: int = column(2000, free=True)
    candidates: int = column(1000, free=True)
    box_regression: bool = column(True, free=True)
    iou_threshold: float = 0.3
    dropout_rate: float = 0.5
    num_classes: int = 20


@dataclass(frozen=True, kw_only=True)
class RCNNVariant(StagedRow):
    """R-CNN's row.

    Attributes:
        crop_size: height and width of the crops that the convolutions see. The frame around a proposal is 16
            of 227 pixels.
    """

    rows: tuple[ConvRow, ...] = KRIZHEVSKY
    crop_size: int = PUBLISHED_CROP
    input_size: int = 500


@dataclass(frozen=True, kw_only=True)
class SPPNetVariant(StagedRow):
    """SPPNet's row.

    Attributes:
        levels: bins of each level of the pyramid, in each direction.
    """

    rows: tuple[ConvRow, ...] = ZF5
    levels: tuple[int, ...] = (6, 3, 2, 1)
    input_size: int = 688


# trainable parameters: the sums over the papers' layers, with the classifier of fine-tuning
RCNN = {"rcnn_alexnet": RCNNVariant(params=56_954_261)}
SPPNET = {"sppnet_zf5": SPPNetVariant(params=73_026_709)}


@keras.saving.register_keras_serializable("kvision")
class DecodeStages(keras.layers.Layer):
    """Boxes and scores of classes from what the stages of R-CNN or SPPNet give.

    Until the SVMs are fitted, the scores are the probabilities of the classifier of fine-tuning; then, the
    sigmoids of the SVMs' scores. The variable `fitted`, 0 or 1, says which.

    Input: a dict with `class_logits` `(batch, N, 1 + classes)`, the background first; `svm_scores`
    `(batch, N, classes)`; `box_deltas` `(batch, N, 4 classes)`; `proposals` `(batch, N, 4)`, of which empty
    ones have the scores 0; and the image.

    Output: boxes `(batch, N, classes, 4)` in pixels, clipped to the image, and scores `(batch, N, classes)`.

    Args:
        box_regression: whether the deltas are applied.
    """

    def __init__(self, box_regression=True, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.box_regression = box_regression
        self.fitted = self.add_weight(name="fitted", initializer="zeros", trainable=False, dtype="float32")

    def call(self, raw, image):
        raw = {name: ops.cast(part, "float32") for name, part in raw.items()}
        proposals = raw["proposals"]
        scores = ops.where(
            self.fitted > 0, ops.sigmoid(raw["svm_scores"]), ops.softmax(raw["class_logits"])[..., 1:]
        )
        scores = ops.where((box_math.area(proposals) > 0)[..., None], scores, 0.0)
        deltas = ops.reshape(raw["box_deltas"], (*ops.shape(scores), 4))
        if not self.box_regression:
            deltas = ops.zeros_like(deltas)
        boxes = box_math.decode(deltas, proposals[:, :, None])
        return box_math.clip(boxes, *ops.shape(image)[1:3]), scores

    def compute_output_spec(self, raw, image):
        scores = raw["svm_scores"].shape
        return keras.KerasTensor((*scores, 4), "float32"), keras.KerasTensor(scores, "float32")

    def get_config(self):
        return super().get_config() | {"box_regression": self.box_regression}


class StagedFamily(DetectionFamily):
    """A table of detectors that are given proposals and learn in stages."""

    def _num_classes(self, weights) -> int | None:
        logits = super()._num_classes(weights)
        return logits and logits - 1  # without the background

    def network(self, variant: Any, input_shape, preprocess) -> keras.Model:
        return with_proposals(super().network(variant, input_shape, preprocess), variant.proposals)


def rcnn_decode(network, v: RCNNVariant, num_classes):
    """Crops of the image, and AlexNet on each."""
    least = 67  # of AlexNet
    if v.crop_size < least:
        raise UserError(f"`crop_size` must be at least {least}, AlexNet's smallest image; got {v.crop_size}.")
    context = round(CONTEXT * v.crop_size / PUBLISHED_CROP)
    pixels = network.get_layer("trunk").input
    crops = RoIWarp(v.crop_size, context, name="regions")(pixels, network.input["proposals"])
    x = keras.layers.Identity(name="trunk")(classic_stages(_each(crops), _rows(v)))
    pooled = keras.layers.Flatten(name="box_features")(x)
    x = hidden_layers(
        x,
        filters=v.hidden_filters,
        map_size=6,
        dropout_rate=v.dropout_rate,
        names=("classifier.1", "classifier.4"),
    )
    return _detect(pooled, x, v, num_classes, network.input)


def sppnet_trunk(x, v: SPPNetVariant):
    return classic_stages(x, _rows(v), pool_padding="symmetric")


def sppnet_decode(network, v: SPPNetVariant, num_classes):
    """A pyramid of bins of each proposal, and the hidden layers."""
    pyramid = RoIPyramidPool(v.levels, stride=STRIDE, name="regions")
    x = _each(pyramid(network.output, network.input["proposals"]))
    x = pooled = keras.layers.Flatten(name="box_features")(x)
    for name in ("fc6", "fc7"):
        x = keras.layers.Dense(v.hidden_filters, activation="relu", name=name)(x)
        if name == "fc6":
            x = keras.layers.Dropout(v.dropout_rate, name="fc6.dropout")(x)
    return _detect(pooled, x, v, num_classes, network.input)


def _rows(v):
    """The convolutions with the row's number of filters."""

    def filters(row):
        return max(round(row.filters * v.width_multiplier / row.groups), 1) * row.groups

    return [row._replace(filters=filters(row)) for row in v.rows]


def _each(regions):
    """All regions of all images in one batch."""
    return keras.layers.Identity(name="each_region")(ops.reshape(regions, (-1, *regions.shape[2:])))


def _detect(pooled, hidden, v, num_classes, inputs):
    """The detections, from the features of each region."""
    hidden = keras.layers.Identity(name="svm_features")(hidden)
    x = keras.layers.Dropout(v.dropout_rate, name="dropout")(hidden)
    answers = {
        "class_logits": keras.layers.Dense(
            num_classes + 1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name=CLASSIFIER,
        )(x),
        "svm_scores": _fitted(num_classes, "svm")(hidden),
        "box_deltas": _fitted(4 * num_classes, "box_regressor")(pooled),
    }
    raw = {"proposals": inputs["proposals"]}
    for key, x in answers.items():
        raw[key] = keras.layers.Identity(name=key)(ops.reshape(x, (-1, v.proposals, x.shape[-1])))
    boxes, scores = DecodeStages(v.box_regression, name="decode")(raw, inputs["image"])
    return NonMaxSuppression(
        v.max_detections, v.candidates, v.score_threshold, v.iou_threshold, name="detections"
    )(boxes, scores)


def _fitted(width, name):
    """A dense layer whose weights `fit_stages` finds, and no gradient."""
    return keras.layers.Dense(width, kernel_initializer="zeros", trainable=False, name=name)


RCNN_FAMILY = StagedFamily(
    trunk=lambda x, v: x, variants=RCNN, module=__name__, decoder=rcnn_decode, classifier=CLASSIFIER
)
SPPNET_FAMILY = StagedFamily(
    trunk=sppnet_trunk, variants=SPPNET, module=__name__, decoder=sppnet_decode, classifier=CLASSIFIER
)
rcnn_alexnet = RCNN_FAMILY.builder("rcnn_alexnet")
sppnet_zf5 = SPPNET_FAMILY.builder("sppnet_zf5")
