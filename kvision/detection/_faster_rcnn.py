"""Faster R-CNN (Ren et al. 2015, https://arxiv.org/abs/1506.01497) on feature pyramids, as in torchvision.

`backbone` puts another network below the pyramid: its maps of strides 4 to 32 in ResNet's place, those of
strides 16 and 32 in MobileNetV3's.

The second version (Li et al. 2021, https://arxiv.org/abs/2111.11429) has two convolutions in its region
proposal network, four in its box head, and batch norms. The others' batch norms are frozen.
"""

from dataclasses import dataclass
from typing import ClassVar

import keras
from keras import ops

from kvision._backbones import AnyBackboneFamily, BackboneRow, has_layer, maps_of
from kvision.blocks import conv_norm_act, feature_pyramid, head_norm
from kvision.detection._decoding import DecodeBoxes, Proposals
from kvision.detection._family import DetectionRow
from kvision.detection._torchvision import TorchvisionFamily
from kvision.layers import AnchorBoxes, NonMaxSuppression, PadToMultiple, RoIAlign, WholeConv2D
from kvision.models._mobilenet_v3 import LARGE, MobileNetV3Variant
from kvision.models._resnet import ResNetVariant
from kvision.spec import IMAGENET, Padding, Preprocess, column

COARSEST = 32  # stride of the backbone's last map, of a multiple of which images are made
ROI_SIZE = 7
PREDICTORS = {"class_logits": "cls_score", "box_regression": "bbox_pred"}  # raw outputs, their layers
HEAD = "roi_heads.box_head"
SMALLEST_DETECTION = 1e-2  # side in pixels, as in torchvision


@dataclass(frozen=True, kw_only=True)
class FasterRCNNRow(DetectionRow, BackboneRow):
    """Columns of both tables.

    Attributes:
        pyramid_filters: of the feature pyramid, and of the convolutions on it.
        hidden_filters: of the dense layers of the box head.
        version: 1 or 2, of torchvision's networks.
        proposals: of the region proposal network, in an image.
        proposal_candidates: of each map.
        proposal_score_threshold: the least probability that a proposal holds an object.
        proposal_iou_threshold: intersection over union with a better proposal above which one is left out.
        candidates: pairs of box and class, the best of which are compared. torchvision compares all.
    """

    pyramid_filters: int = 256
    hidden_filters: int = 1024
    version: int = column(1, fixed=True)
    proposals: int = column(1000, free=True)
    proposal_candidates: int = column(1000, free=True)
    proposal_score_threshold: float = column(0.0, free=True)
    proposal_iou_threshold: float = column(0.7, free=True)
    candidates: int = column(1000, free=True)
    input_size: int = 800
    num_classes: int = 90


@dataclass(frozen=True, kw_only=True)
class FasterRCNNResNetVariant(FasterRCNNRow, ResNetVariant):
    """A row of ResNet's table, with Faster R-CNN's columns."""


@dataclass(frozen=True, kw_only=True)
class FasterRCNNMobileNetVariant(FasterRCNNRow, MobileNetV3Variant):
    """A row of MobileNetV3's table, with Faster R-CNN's columns."""

    padding: Padding = "symmetric"
    proposal_score_threshold: float = 0.05
    dropout_rate: float = 0.0
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    preprocess: Preprocess = IMAGENET


RESNETS = {  # trainable parameters: torchvision
    "fasterrcnn_resnet50_fpn": FasterRCNNResNetVariant(
        backbone="resnet50",
        depths=(3, 4, 6, 3),
        norm_epsilon=0.0,  # of the frozen batch norms of the published weights
        params=41_755_286,
    ),
    "fasterrcnn_resnet50_fpn_v2": FasterRCNNResNetVariant(
        backbone="resnet50", depths=(3, 4, 6, 3), version=2, params=43_712_278
    ),
}
MOBILENETS = {  # trainable parameters: torchvision
    "fasterrcnn_mobilenet_v3_large_fpn": FasterRCNNMobileNetVariant(
        backbone="mobilenet_v3_large", rows=LARGE, head_filters=1280, params=19_386_354
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": FasterRCNNMobileNetVariant(
        backbone="mobilenet_v3_large",
        rows=LARGE,
        head_filters=1280,
        proposals=150,
        proposal_candidates=150,
        input_size=320,
        params=19_386_354,
    ),
}
RESNET_LEVELS = (("c2", 4), ("c3", 8), ("c4", 16), ("c5", 32))  # layers and their strides
MOBILENET_LEVELS = (("backbone.body.13.block.3.1", 32), ("c5", 32))  # torchvision's choice
TWO_LEVELS = RESNET_LEVELS[2:]  # of other backbones in MobileNetV3's place
RESNET_SIZES = ((32,), (64,), (128,), (256,), (512,))
MOBILENET_SIZES = ((32, 64, 128, 256, 512),) * 3


class FasterRCNNFamily(TorchvisionFamily):
    """As torchvision, where the trunk is a body behind which there is a pyramid."""

    prefix: ClassVar[str] = "backbone.body."

    def network(self, variant, input_shape, preprocess) -> keras.Model:
        after = {"preprocess": PadToMultiple(COARSEST, name="pad")}
        network = AnyBackboneFamily.network(self, variant, input_shape, preprocess, after)
        for layer in network.layers:
            if variant.version == 1 and isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        return network


def decode(network, v: FasterRCNNRow, num_classes):
    levels, sizes = _levels(network, v)
    pyramid = feature_pyramid(
        maps_of(network, *(name for name, _ in levels)),
        filters=v.pyramid_filters,
        norm=head_norm if v.version == 2 else None,
        name="backbone.fpn",
    )
    anchors = AnchorBoxes(sizes, name="anchors")
    padded, image = network.get_layer("pad").output, network.input
    raw = propose(pyramid, anchors, v.pyramid_filters, v, padded, image, depth=v.version)
    regions = RoIAlign(ROI_SIZE, strides=[stride for _, stride in levels], name="roi_heads.box_roi_pool")(
        pyramid[:-1], raw["proposals"]
    )
    head = _convolutional_head if v.version == 2 else _dense_head
    return detect(regions, raw, v, num_classes, image, head)


def _levels(network, v):
    """The layers whose outputs the pyramid has, with their strides, and the sizes of the anchors."""
    if isinstance(v, ResNetVariant):
        return RESNET_LEVELS, RESNET_SIZES
    own = has_layer(network, MOBILENET_LEVELS[0][0])
    return MOBILENET_LEVELS if own else TWO_LEVELS, MOBILENET_SIZES


def propose(maps, anchors, filters, v, padded, image, depth=1):
    """The region proposal network: its raw outputs and the "proposals".

    Args:
        maps: that it looks at, each in the same way.
        anchors: an `AnchorBoxes`.
        filters: of its convolutions.
        v: the row.
        padded: the image that the maps are of.
        image: to which proposals are clipped.
        depth: number of its convolutions.
    """
    logits, deltas = _propose(maps, anchors.boxes_per_place[0], filters, depth)
    raw = {
        "rpn_logits": keras.layers.Concatenate(axis=1, name="rpn_logits")(logits),
        "rpn_deltas": keras.layers.Concatenate(axis=1, name="rpn_deltas")(deltas),
        "anchors": anchors(maps, padded),
    }
    raw["proposals"] = Proposals(
        v.proposals,
        v.proposal_candidates,
        v.proposal_score_threshold,
        v.proposal_iou_threshold,
        name="proposals",
    )(logits, deltas, raw["anchors"], image)
    return raw


def detect(regions, raw, v, num_classes, image, head=None, stddevs=(None, None)):
    """The detections, from the regions' features.

    Args:
        regions: `(batch, proposals, size, size, filters)`.
        raw: a dict with their boxes as "proposals"; the raw outputs of the box head are added.
        v: the row.
        num_classes: without the background.
        image: to which boxes are clipped.
        head: from features and row to a vector for each region; None for two dense layers.
        stddevs: of fresh kernels, of classes and of boxes; None for Keras' own.
    """
    x = (head or _dense_head)(ops.reshape(regions, (-1, *regions.shape[2:])), v)
    widths = num_classes + 1, 4 * (num_classes + 1)
    for (key, name), width, stddev in zip(PREDICTORS.items(), widths, stddevs, strict=True):
        initializer = keras.initializers.RandomNormal(stddev=stddev) if stddev else "glorot_uniform"
        outputs = keras.layers.Dense(
            width, kernel_initializer=initializer, name=f"roi_heads.box_predictor.{name}"
        )(x)
        raw[key] = keras.layers.Identity(name=key)(ops.reshape(outputs, (-1, v.proposals, width)))
    boxes, scores = DecodeBoxes(
        "class_logits", "box_regression", "proposals", smallest=SMALLEST_DETECTION, name="decode"
    )(raw, image)
    return NonMaxSuppression(
        v.max_detections, v.candidates, v.score_threshold, v.iou_threshold, name="detections"
    )(boxes, scores)


def _propose(maps, anchors_per_place, filters, depth):
    """Logits `(batch, n)` and deltas `(batch, n, 4)` of each map."""

    def shared(filters, kernel_size, name, activation=None):
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name=f"rpn.head.{name}",
        )

    convs = [shared(filters, 3, f"conv.{i}.0", "relu") for i in range(depth)]
    classify, regress = (
        shared(anchors_per_place, 1, "cls_logits"),
        shared(4 * anchors_per_place, 1, "bbox_pred"),
    )
    logits, deltas = [], []
    for level, x in enumerate(maps):
        for layer in convs:
            x = layer(x)
        logits.append(keras.layers.Reshape((-1,), name=f"rpn_logits.{level}")(classify(x)))
        deltas.append(keras.layers.Reshape((-1, 4), name=f"rpn_deltas.{level}")(regress(x)))
    return logits, deltas


def _convolutional_head(x, v):
    """`(regions, 7, 7, filters)` to `(regions, hidden_filters)`, by four convolutions and a dense layer."""
    for i in range(4):
        x = conv_norm_act(
            x,
            filters=v.pyramid_filters,
            kernel_size=3,
            norm=head_norm,
            activation="relu",
            name=f"{HEAD}.{i}.0",
            norm_name=f"{HEAD}.{i}.1",
        )
    x = WholeConv2D(v.hidden_filters, ROI_SIZE, activation="relu", name=f"{HEAD}.5")(x)
    return keras.layers.Flatten(name=f"{HEAD}.flatten")(x)


def _dense_head(x, v):
    """`(regions, 7, 7, filters)` to `(regions, hidden_filters)`, by two dense layers."""
    x = WholeConv2D(v.hidden_filters, ROI_SIZE, activation="relu", name=f"{HEAD}.fc6")(x)
    x = keras.layers.Flatten(name=f"{HEAD}.flatten")(x)
    x = keras.layers.Dropout(v.dropout_rate, name=f"{HEAD}.fc6.dropout")(x)
    x = keras.layers.Dense(v.hidden_filters, activation="relu", name=f"{HEAD}.fc7")(x)
    return keras.layers.Dropout(v.dropout_rate, name=f"{HEAD}.fc7.dropout")(x)


CLASSIFIER = "roi_heads.box_predictor.cls_score"
FAMILY = FasterRCNNFamily(variants=RESNETS, module=__name__, classifier=CLASSIFIER, decoder=decode)
MOBILENET_FAMILY = FasterRCNNFamily(
    variants=MOBILENETS, module=__name__, classifier=CLASSIFIER, decoder=decode
)
fasterrcnn_resnet50_fpn = FAMILY.builder("fasterrcnn_resnet50_fpn")
fasterrcnn_resnet50_fpn_v2 = FAMILY.builder("fasterrcnn_resnet50_fpn_v2")
fasterrcnn_mobilenet_v3_large_fpn = MOBILENET_FAMILY.builder("fasterrcnn_mobilenet_v3_large_fpn")
fasterrcnn_mobilenet_v3_large_320_fpn = MOBILENET_FAMILY.builder("fasterrcnn_mobilenet_v3_large_320_fpn")
