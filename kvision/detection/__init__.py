"""Networks that find objects."""

from kvision.detection._family import raw as raw
from kvision.detection._faster_rcnn import (
    FasterRCNNMobileNetVariant as FasterRCNNMobileNetVariant,
    FasterRCNNResNetVariant as FasterRCNNResNetVariant,
    fasterrcnn_mobilenet_v3_large_320_fpn as fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn as fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn as fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2 as fasterrcnn_resnet50_fpn_v2,
)
from kvision.detection._ssdlite import (
    SSDLiteVariant as SSDLiteVariant,
    ssdlite320_mobilenet_v3_large as ssdlite320_mobilenet_v3_large,
)
