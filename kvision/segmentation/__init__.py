"""Networks that classify each pixel, and classifiers made convolutional."""

from kvision.segmentation._convolutionalize import convolutionalize
from kvision.segmentation.deeplabv3 import deeplabv3_mobilenet_v3_large, deeplabv3_resnet50
from kvision.segmentation.fcn import fcn8s, fcn16s, fcn32s, fcn_resnet50, fcn_resnet101
from kvision.segmentation.lraspp import lraspp_mobilenet_v3_large

__all__ = [
    "convolutionalize",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "fcn8s",
    "fcn16s",
    "fcn32s",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
]
