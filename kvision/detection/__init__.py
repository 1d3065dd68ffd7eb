"""Networks that find objects."""

from kvision.detection._family import raw as raw
from kvision.detection._simota import yolox_losses as yolox_losses
from kvision.detection._yolox import (
    YOLOXVariant as YOLOXVariant,
    yolox_l as yolox_l,
    yolox_m as yolox_m,
    yolox_nano as yolox_nano,
    yolox_s as yolox_s,
    yolox_tiny as yolox_tiny,
    yolox_x as yolox_x,
)
