"""Networks that find objects, and the search for places where objects may be."""

from kvision._selective_search import selective_search as selective_search
from kvision.detection._coverage import Assigned as Assigned, assigned as assigned
from kvision.detection._family import raw as raw
from kvision.detection._faster_rcnn import (
    FasterRCNNMobileNetVariant as FasterRCNNMobileNetVariant,
    FasterRCNNResNetVariant as FasterRCNNResNetVariant,
    fasterrcnn_mobilenet_v3_large_320_fpn as fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn as fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn as fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2 as fasterrcnn_resnet50_fpn_v2,
)
from kvision.detection._simota import yolox_losses as yolox_losses
from kvision.detection._ssdlite import (
    SSDLiteVariant as SSDLiteVariant,
    ssdlite320_mobilenet_v3_large as ssdlite320_mobilenet_v3_large,
)
from kvision.detection._staged import (
    RCNNVariant as RCNNVariant,
    SPPNetVariant as SPPNetVariant,
    rcnn_alexnet as rcnn_alexnet,
    sppnet_zf5 as sppnet_zf5,
)
from kvision.detection._stages import fit_stages as fit_stages, last_stages as last_stages
from kvision.detection._training import with_losses as with_losses
from kvision.detection._vgg_rcnn import (
    FasterRCNNVariant as FasterRCNNVariant,
    FastRCNNVariant as FastRCNNVariant,
    fast_rcnn_vgg16 as fast_rcnn_vgg16,
    faster_rcnn_vgg16 as faster_rcnn_vgg16,
)
from kvision.detection._yolo_v1 import (
    YOLOv1Variant as YOLOv1Variant,
    yolo_v1 as yolo_v1,
    yolo_v1_fast as yolo_v1_fast,
)
from kvision.detection._yolox import (
    YOLOXVariant as YOLOXVariant,
    yolox_l as yolox_l,
    yolox_m as yolox_m,
    yolox_nano as yolox_nano,
    yolox_s as yolox_s,
    yolox_tiny as yolox_tiny,
    yolox_x as yolox_x,
)
