"""YOLOX (Ge et al. 2021, https://arxiv.org/abs/2107.08430), as in its authors' code.

The published networks take BGR. Their layers and weights are the same here, behind a layer that turns the
RGB of all networks of kvision around. The thresholds are those of the authors' evaluation; for pictures to
look at, their README has a `score_threshold` of 0.25 and an `iou_threshold` of 0.45. As there, a box is
detected as its best class alone.
"""

import math
from dataclasses import dataclass
from functools import partial

import keras

from kvision.blocks import (
    base_conv,
    batch_norm_of,
    csp_layer,
    focus,
    path_aggregation,
    separable_conv,
    spp_bottleneck,
    tap,
)
from kvision.detection._family import DetectionFamily, DetectionRow
from kvision.errors import UserError
from kvision.layers import DecodeCells, JoinMaps, NonMaxSuppression, ReverseChannels
from kvision.spec import RAW, BatchNormVariant, Preprocess, column

STRIDES = (8, 16, 32)
PRIOR = -math.log(99)  # logit of the probability 0.01, with which training begins


@dataclass(frozen=True, kw_only=True)
class YOLOXVariant(DetectionRow, BatchNormVariant):
    """A row of the table.

    Attributes:
        depth_multiplier: of the 3 bottlenecks of a CSP layer.
        width_multiplier: of the 64 filters of the stem, and all others.
        depthwise: whether convolutions of 3 x 3 are depthwise separable.
        activation: behind each batch norm.
        candidates: boxes that are compared, those of the best scores.
    """

    depth_multiplier: float
    width_multiplier: float
    depthwise: bool = False
    activation: str = "silu"
    candidates: int = column(1000, free=True)
    score_threshold: float = 0.01
    iou_threshold: float = 0.65
    input_size: int = 640
    num_classes: int = 80
    preprocess: Preprocess = RAW
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.97
    dropout_rate: float = column(0.0, fixed=True)


VARIANTS = {  # trainable parameters: of the authors' networks
    "yolox_nano": YOLOXVariant(
        depth_multiplier=0.33, width_multiplier=0.25, depthwise=True, input_size=416, params=912_159
    ),
    "yolox_tiny": YOLOXVariant(
        depth_multiplier=0.33, width_multiplier=0.375, input_size=416, params=5_055_855
    ),
    "yolox_s": YOLOXVariant(depth_multiplier=0.33, width_multiplier=0.5, params=8_968_255),
    "yolox_m": YOLOXVariant(depth_multiplier=0.67, width_multiplier=0.75, params=25_326_495),
    "yolox_l": YOLOXVariant(depth_multiplier=1.0, width_multiplier=1.0, params=54_208_895),
    "yolox_x": YOLOXVariant(depth_multiplier=1.33, width_multiplier=1.25, params=99_071_455),
}


def _convolutions(v: YOLOXVariant):
    """The kinds of convolution for kernels of 1 x 1 (and the stem), and of 3 x 3."""
    keywords = {"norm": batch_norm_of(v), "activation": v.activation}
    conv = partial(base_conv, **keywords)
    return conv, partial(separable_conv, **keywords) if v.depthwise else conv


def trunk(x, v: YOLOXVariant):
    """CSPDarknet, below `backbone.backbone`."""
    _check_shape(x)
    conv, wide = _convolutions(v)
    filters, depth = int(64 * v.width_multiplier), max(round(3 * v.depth_multiplier), 1)
    path = "backbone.backbone"
    x = ReverseChannels(name="bgr")(x)
    x = tap(focus(x, filters=filters, conv=conv, name=f"{path}.stem"), "c1")
    for level in (2, 3, 4):
        filters *= 2
        stage = f"{path}.dark{level}"
        x = wide(x, filters=filters, kernel_size=3, strides=2, name=f"{stage}.0")
        bottlenecks = depth if level == 2 else 3 * depth
        x = csp_layer(x, filters=filters, depth=bottlenecks, conv=conv, wide=wide, name=f"{stage}.1")
        x = tap(x, f"c{level}")
    filters *= 2
    stage = f"{path}.dark5"
    x = wide(x, filters=filters, kernel_size=3, strides=2, name=f"{stage}.0")
    x = spp_bottleneck(x, filters=filters, conv=conv, name=f"{stage}.1")
    x = csp_layer(x, filters=filters, depth=depth, residual=False, conv=conv, wide=wide, name=f"{stage}.2")
    return tap(x, "c5")


def _check_shape(x):
    *sizes, channels = x.shape[1:]
    if channels != 3:
        raise UserError(f"`input_shape` must have 3 channels, or 1 for grey images; got {channels}.")
    if any(size and size % STRIDES[-1] for size in sizes):
        nearest = tuple(size and max(round(size / STRIDES[-1]), 1) * STRIDES[-1] for size in sizes)
        raise UserError(
            f"`input_shape` must have sides that are multiples of {STRIDES[-1]}; got {tuple(sizes)}, "
            f"to which {nearest} is nearest."
        )


def detect(network, v: YOLOXVariant, num_classes):
    """Path aggregation, the decoupled head of each map, decoding and suppression."""
    conv, wide = _convolutions(v)
    pyramid = path_aggregation(
        [network.get_layer(f"c{level}").output for level in (3, 4)] + [network.output],
        depth=round(3 * v.depth_multiplier),
        conv=conv,
        wide=wide,
        name="backbone",
    )
    filters = int(256 * v.width_multiplier)
    maps = {"boxes": [], "objectness": [], "classes": []}
    for i, x in enumerate(pyramid):
        x = conv(x, filters=filters, name=f"head.stems.{i}")
        classes = boxes = x
        for j in range(2):
            classes = wide(classes, filters=filters, kernel_size=3, name=f"head.cls_convs.{i}.{j}")
            boxes = wide(boxes, filters=filters, kernel_size=3, name=f"head.reg_convs.{i}.{j}")
        maps["classes"].append(_predict(classes, num_classes, PRIOR, f"head.cls_preds.{i}"))
        maps["boxes"].append(_predict(boxes, 4, 0.0, f"head.reg_preds.{i}"))
        maps["objectness"].append(_predict(boxes, 1, PRIOR, f"head.obj_preds.{i}"))
    objectness = JoinMaps(name="head.objectness")(maps["objectness"])
    outputs = {
        "boxes": JoinMaps(name="boxes")(maps["boxes"]),
        "objectness": keras.layers.Reshape((-1,), name="objectness")(objectness),
        "classes": JoinMaps(name="classes")(maps["classes"]),
    }
    decoded = DecodeCells(STRIDES, name="decode")(outputs, network.input)
    suppression = NonMaxSuppression(
        max_detections=v.max_detections,
        candidates=v.candidates,
        score_threshold=v.score_threshold,
        iou_threshold=v.iou_threshold,
        multi_label=False,
        name="detections",
    )
    return suppression(decoded["boxes"], decoded["scores"])


def _predict(x, filters, bias, name):
    return keras.layers.Conv2D(
        filters,
        1,
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),  # PyTorch's
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
    )(x)


FAMILY = DetectionFamily(trunk=trunk, variants=VARIANTS, decoder=detect, classifier="head.cls_preds.0")
yolox_nano = FAMILY.builder("yolox_nano")
yolox_tiny = FAMILY.builder("yolox_tiny")
yolox_s = FAMILY.builder("yolox_s")
yolox_m = FAMILY.builder("yolox_m")
yolox_l = FAMILY.builder("yolox_l")
yolox_x = FAMILY.builder("yolox_x")
