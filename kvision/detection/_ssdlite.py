"""SSDLite on MobileNetV3 (Howard et al. 2019, https://arxiv.org/abs/1905.02244, 6.3), as in torchvision.

`backbone` puts another network in MobileNetV3's place, whose last maps of strides 16 and 32 are looked at.
"""

from dataclasses import dataclass

import keras
import numpy as np

from kvision._backbones import BackboneFamily, BackboneRow, has_layer, maps_of
from kvision.blocks import Row, batch_norm_of, conv, conv_block, conv_norm_act, depthwise_conv
from kvision.detection._decoding import DecodeBoxes
from kvision.detection._family import DetectionRow
from kvision.detection._torchvision import TorchvisionFamily
from kvision.layers import DefaultBoxes, NonMaxSuppression
from kvision.models._mobilenet_v3 import LARGE, MobileNetV3Variant, bneck
from kvision.spec import Padding, column

REDUCED = (*LARGE[:-2], Row(bneck, 5, 2, 6, 80, 3, True), Row(conv_block, 1, 1, 1, 480, 1, False))  # 6.3


@dataclass(frozen=True, kw_only=True)
class SSDLiteVariant(DetectionRow, BackboneRow, MobileNetV3Variant):
    """A row of MobileNetV3's table, and what follows.

    Attributes:
        extra_filters: of the maps behind the trunk, each half as wide and high as the one before.
        smallest_scale: side of the default boxes on the first map, as a share of the image's.
        largest_scale: on the last map; the others lie evenly between.
        candidates: pairs of box and class, the best of which are compared. torchvision takes 300 of each
            class.
    """

    extra_filters: tuple[int, ...] = (512, 256, 256, 128)
    smallest_scale: float = column(0.2, same_shapes=True)
    largest_scale: float = column(0.95, same_shapes=True)
    max_detections: int = 300
    score_threshold: float = 0.001
    iou_threshold: float = 0.55
    candidates: int = column(1000, free=True)
    input_size: int = 320
    num_classes: int = 90
    padding: Padding = "symmetric"
    dropout_rate: float = 0.0
    norm_momentum: float = 0.97


VARIANTS = {  # trainable parameters: torchvision
    "ssdlite320_mobilenet_v3_large": SSDLiteVariant(
        backbone="mobilenet_v3_large", rows=REDUCED, head_filters=1280, params=3_440_060
    ),
}
EXPANSION = "blocks.5.0.bn1.act"
SPLIT = 13  # the block behind whose expansion the first map is taken


class SSDLiteFamily(TorchvisionFamily):
    """As torchvision, which cuts the trunk in two behind that expansion."""

    def paths(self, backbone):
        return {name: _path(path) for name, path in BackboneFamily.paths(self, backbone).items()}


def _path(path):
    _, block, *rest = path.split(".")
    if int(block) < SPLIT:
        return ".".join(["backbone.features.0", block, *rest])
    if int(block) > SPLIT:
        return ".".join(["backbone.features.1", str(int(block) - SPLIT), *rest])
    _, part, *rest = rest
    start = "backbone.features.0.13" if part == "0" else f"backbone.features.1.0.{part}"
    return ".".join([start, *rest])


def decode(network, v: SSDLiteVariant, num_classes):
    norm = batch_norm_of(v)
    maps = _maps(network)
    x = maps[-1]
    for place, filters in enumerate(v.extra_filters):
        x = _extra(x, filters, norm, f"backbone.extra.{place}")
        maps.append(x)
    levels = range(len(maps))
    scales = [*np.linspace(v.smallest_scale, v.largest_scale, len(maps)).tolist(), 1.0]
    anchors = DefaultBoxes(scales, name="anchors")
    raw = {"anchors": anchors(maps, network.input)}
    for head, width, key in (
        ("classification_head", num_classes + 1, "cls_logits"),
        ("regression_head", 4, "bbox_regression"),
    ):
        paths = [f"head.{head}.module_list.{level}" for level in levels]
        outputs = [
            keras.layers.Reshape((-1, width), name=f"{path}.reshape")(_predict(x, boxes * width, norm, path))
            for x, boxes, path in zip(maps, anchors.boxes_per_place, paths, strict=True)
        ]
        raw[key] = keras.layers.Concatenate(axis=1, name=key)(outputs)
    boxes, scores = DecodeBoxes("cls_logits", "bbox_regression", "anchors", name="decode")(raw, network.input)
    return NonMaxSuppression(
        v.max_detections, v.candidates, v.score_threshold, v.iou_threshold, name="detections"
    )(boxes, scores)


def _maps(network):
    """The maps of strides 16 and 32: those of the paper, or the taps of another backbone."""
    if has_layer(network, EXPANSION):
        return [network.get_layer(EXPANSION).output, network.output]
    return maps_of(network, "c4", "c5")


def _extra(x, filters, norm, name):
    """Half the channels, a depthwise convolution with strides 2, and all channels."""
    keywords = {"norm": norm, "activation": "relu6", "initializer": _initializer}
    x = conv_norm_act(x, filters=filters // 2, name=f"{name}.0.0", norm_name=f"{name}.0.1", **keywords)
    x = _depthwise(x, norm, f"{name}.1", strides=2)
    return conv_norm_act(x, filters=filters, name=f"{name}.2.0", norm_name=f"{name}.2.1", **keywords)


def _predict(x, filters, norm, name):
    x = _depthwise(x, norm, f"{name}.0")
    return conv(x, filters=filters, use_bias=True, initializer=_initializer, name=f"{name}.1")


def _depthwise(x, norm, name, strides=1):
    keywords = {"kernel_size": 3, "strides": strides, "padding": "symmetric", "initializer": _initializer}
    x = depthwise_conv(x, **keywords, name=f"{name}.0")
    return norm(x, activation="relu6", name=f"{name}.1")


def _initializer():
    return keras.initializers.RandomNormal(stddev=0.03)


FAMILY = SSDLiteFamily(
    variants=VARIANTS,
    module=__name__,
    classifier="head.classification_head.module_list.0.1",
    boxes_per_place=6,
    decoder=decode,
)
ssdlite320_mobilenet_v3_large = FAMILY.builder("ssdlite320_mobilenet_v3_large")
