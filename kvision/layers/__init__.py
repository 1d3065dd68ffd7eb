"""Layers that own a custom call or variables, registered under "kvision"."""

from kvision.layers.drop_path import DropPath
from kvision.layers.global_response_norm import GlobalResponseNormalization
from kvision.layers.grouped_conv import GroupedConv2D
from kvision.layers.layer_scale import LayerScale
from kvision.layers.local_response_norm import LocalResponseNormalization
from kvision.layers.multi_query_attention import MultiQueryAttention

__all__ = [
    "DropPath",
    "GlobalResponseNormalization",
    "GroupedConv2D",
    "LayerScale",
    "LocalResponseNormalization",
    "MultiQueryAttention",
]
