"""Fast R-CNN (Girshick 2015) and Faster R-CNN (Ren et al. 2015) on VGG-16, as in the papers.

Fast R-CNN (https://arxiv.org/abs/1504.08083) is given proposals; Faster R-CNN
(https://arxiv.org/abs/1506.01497) has a network that proposes regions. Both pool regions of the last feature
map, on which two hidden layers stand that are as wide as VGG's. `backbone` puts another network in VGG's
place, whose map of the row's `stride` is pooled.

Departures: `backbone_weights` are those of the convolutions, and the hidden layers are fresh; the region
proposal network has one logit for each anchor, not two, and learns from anchors that cross the image's border
too; images are letterboxed to a fixed size. The papers keep the first four convolutions, conv1_1 to conv2_2,
as they are in ImageNet's weights: `kvision-train --freeze=4`.
"""

from dataclasses import dataclass
from typing import ClassVar

import keras

from kvision._backbones import BackboneRow, maps_of
from kvision.detection._family import DetectionRow, with_proposals
from kvision.detection._faster_rcnn import ROI_SIZE, detect, propose
from kvision.detection._torchvision import CLASSES, TorchvisionFamily
from kvision.errors import UserError
from kvision.layers import AnchorBoxes, RoIPool
from kvision.models._vgg import VGGVariant
from kvision.spec import column

PIXELS = "pixels in [0, 255], `(batch, height, width, channels)`"
PIXELS_AND_PROPOSALS = f"""a dict of "image", {PIXELS}, and
    "proposals", float32 `(batch, proposals, 4)`, xyxy in pixels, 0 where there are fewer"""
STDDEVS = (0.01, 0.001)  # of fresh kernels, of classes and of boxes (Girshick 2015, section 2.3)


@dataclass(frozen=True, kw_only=True)
class FastRCNNVariant(DetectionRow, BackboneRow, VGGVariant):
    """A row of VGG's table, with Fast R-CNN's columns; `hidden_filters` and `dropout_rate` are of its head.

    Attributes:
        stride: of the feature map of which regions are pooled: 16, or less for small images.
        proposals: in an image, that the network is given.
        candidates: pairs of box and class, the best of which are compared.
    """

    backbone: str = "vgg16"
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    stride: int = column(16, same_shapes=True)
    proposals: int = column(2000, free=True)
    candidates: int = column(1000, free=True)
    iou_threshold: float = 0.3
    input_size: int = 600
    num_classes: int = 20


@dataclass(frozen=True, kw_only=True)
class FasterRCNNVariant(FastRCNNVariant):
    """A row of VGG's table, with Faster R-CNN's columns.

    Attributes:
        anchor_sizes: sides of the square anchors in pixels; each has one of half and one of twice its height
            by width beside it.
        rpn_filters: of the convolution of the region proposal network.
        proposals: of the region proposal network, in an image; 2000 in training.
        proposal_candidates: that are compared, at most.
        proposal_score_threshold: the least probability that a proposal holds an object.
        proposal_iou_threshold: intersection over union with a better proposal above which one is left out.
    """

    anchor_sizes: tuple[int, ...] = (128, 256, 512)
    rpn_filters: int = 512
    proposals: int = column(300, free=True)
    proposal_candidates: int = column(6000, free=True)
    proposal_score_threshold: float = column(0.0, free=True)
    proposal_iou_threshold: float = column(0.7, free=True)


FAST = {"fast_rcnn_vgg16": FastRCNNVariant(params=134_690_729)}
FASTER = {"faster_rcnn_vgg16": FasterRCNNVariant(params=137_073_622)}


class VGGFamily(TorchvisionFamily):
    """A table of detectors whose layers have the names of torchvision's Faster R-CNN."""

    doc: ClassVar[str] = TorchvisionFamily.doc.replace(f" {CLASSES}", ' "classes" and "count".')


class FastRCNNFamily(VGGFamily):
    """A table of detectors that are given proposals."""

    doc: ClassVar[str] = VGGFamily.doc.replace(f" {PIXELS}, to", f" {PIXELS_AND_PROPOSALS}, to")

    def network(self, variant, input_shape, preprocess) -> keras.Model:
        return with_proposals(super().network(variant, input_shape, preprocess), variant.proposals)


def fast_decode(network, v: FastRCNNVariant, num_classes):
    raw = {"proposals": network.input["proposals"]}
    return _detect(_last_map(network, v), raw, v, num_classes, network.input["image"])


def faster_decode(network, v: FasterRCNNVariant, num_classes):
    x, image = _last_map(network, v), network.input
    anchors = AnchorBoxes([v.anchor_sizes], name="anchors")
    raw = propose([x], anchors, v.rpn_filters, v, image, image)
    return _detect(x, raw, v, num_classes, image)


def _last_map(network, v):
    """The map of the row's stride, where the trunk ends."""
    tap = f"c{v.stride.bit_length() - 1}"
    if v.stride not in (2, 4, 8, 16, 32):
        raise UserError(f"`stride` must be 2, 4, 8, 16 or 32; got {v.stride}.")
    return maps_of(network, tap)[0]


def _detect(x, raw, v, num_classes, image):
    pool = RoIPool(ROI_SIZE, stride=v.stride, name="roi_heads.box_roi_pool")
    return detect(pool(x, raw["proposals"]), raw, v, num_classes, image, stddevs=STDDEVS)


CLASSIFIER = "roi_heads.box_predictor.cls_score"
FAST_FAMILY = FastRCNNFamily(variants=FAST, module=__name__, classifier=CLASSIFIER, decoder=fast_decode)
FASTER_FAMILY = VGGFamily(variants=FASTER, module=__name__, classifier=CLASSIFIER, decoder=faster_decode)
fast_rcnn_vgg16 = FAST_FAMILY.builder("fast_rcnn_vgg16")
faster_rcnn_vgg16 = FASTER_FAMILY.builder("faster_rcnn_vgg16")
