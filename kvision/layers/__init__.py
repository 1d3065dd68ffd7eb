"""Layers that own a custom call or variables, registered under "kvision"."""

from kvision.layers.anchors import AnchorBoxes, DefaultBoxes
from kvision.layers.batch_norm import BatchNorm
from kvision.layers.cross_attention import CrossAttention
from kvision.layers.decoder_block import DecoderBlock
from kvision.layers.drop_path import DropPath
from kvision.layers.frames import FoldFrames, LogMeanProbability, UnfoldFrames
from kvision.layers.global_response_norm import GlobalResponseNormalization
from kvision.layers.grid_cells import DecodeCells, JoinMaps, decode_cells, grid_cells
from kvision.layers.grouped_conv import GroupedConv2D
from kvision.layers.initializers import Bilinear
from kvision.layers.layer_scale import LayerScale
from kvision.layers.local_response_norm import LocalResponseNormalization
from kvision.layers.merge_patches import MergePatches
from kvision.layers.mlp import MLP
from kvision.layers.multi_query_attention import MultiQueryAttention
from kvision.layers.nms import NonMaxSuppression, suppress
from kvision.layers.resizing import CropLike, PadToMultiple, ResizeLike
from kvision.layers.reverse_channels import ReverseChannels
from kvision.layers.roi_align import RoIAlign
from kvision.layers.roi_pool import RoIPool, RoIPyramidPool, SpatialPyramidPooling
from kvision.layers.roi_warp import RoIWarp
from kvision.layers.self_attention import AttentionShares, MultiHeadSelfAttention
from kvision.layers.shared import Shared
from kvision.layers.standardized_conv import StandardizedConv2D
from kvision.layers.tokens import PositionEmbedding, PrefixToken, SinusoidalEncoding, TokenTap
from kvision.layers.whole_conv import WholeConv2D
from kvision.layers.window_attention import CosineWindowAttention, WindowAttention

__all__ = [
    "MLP",
    "AnchorBoxes",
    "AttentionShares",
    "BatchNorm",
    "Bilinear",
    "CosineWindowAttention",
    "CropLike",
    "CrossAttention",
    "DecodeCells",
    "DecoderBlock",
    "DefaultBoxes",
    "DropPath",
    "FoldFrames",
    "GlobalResponseNormalization",
    "GroupedConv2D",
    "JoinMaps",
    "LayerScale",
    "LocalResponseNormalization",
    "LogMeanProbability",
    "MergePatches",
    "MultiHeadSelfAttention",
    "MultiQueryAttention",
    "NonMaxSuppression",
    "PadToMultiple",
    "PositionEmbedding",
    "PrefixToken",
    "ResizeLike",
    "ReverseChannels",
    "RoIAlign",
    "RoIPool",
    "RoIPyramidPool",
    "RoIWarp",
    "Shared",
    "SinusoidalEncoding",
    "SpatialPyramidPooling",
    "StandardizedConv2D",
    "TokenTap",
    "UnfoldFrames",
    "WholeConv2D",
    "WindowAttention",
    "decode_cells",
    "grid_cells",
    "suppress",
]
