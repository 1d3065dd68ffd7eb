"""Networks: one function a variant, each returning a functional `keras.Model`."""

from kvision.models.efficientnetv1 import (
    efficientnet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
    efficientnet_lite3,
    efficientnet_lite4,
)
from kvision.models.mobilenetv1 import mobilenet_v1
from kvision.models.mobilenetv2 import mobilenet_v2
from kvision.models.mobilenetv3 import (
    mobilenet_v3_large,
    mobilenet_v3_large_minimal,
    mobilenet_v3_small,
    mobilenet_v3_small_minimal,
)

__all__ = [
    "efficientnet",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_large_minimal",
    "mobilenet_v3_small",
    "mobilenet_v3_small_minimal",
]
