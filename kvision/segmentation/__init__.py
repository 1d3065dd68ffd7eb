"""Networks that classify each pixel, and classifiers made convolutional."""

from kvision.segmentation._convolutionalize import convolutionalize as convolutionalize
from kvision.segmentation._deeplabv3 import (
    DeepLabMobileNetVariant as DeepLabMobileNetVariant,
    DeepLabResNetVariant as DeepLabResNetVariant,
    deeplabv3_mobilenet_v3_large as deeplabv3_mobilenet_v3_large,
    deeplabv3_resnet50 as deeplabv3_resnet50,
)
from kvision.segmentation._fcn import (
    FCNResNetVariant as FCNResNetVariant,
    FCNVariant as FCNVariant,
    fcn8s as fcn8s,
    fcn16s as fcn16s,
    fcn32s as fcn32s,
    fcn_resnet50 as fcn_resnet50,
    fcn_resnet101 as fcn_resnet101,
)
from kvision.segmentation._lraspp import (
    LRASPPVariant as LRASPPVariant,
    lraspp_mobilenet_v3_large as lraspp_mobilenet_v3_large,
)
