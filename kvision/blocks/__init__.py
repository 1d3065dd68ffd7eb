"""Building blocks: functions from tensor to tensor, named after the parameters they create."""

from kvision.blocks.bottleneck import basic_block, bottleneck
from kvision.blocks.classic import ConvRow, classic_stages, hidden_layers
from kvision.blocks.conv import (
    activate,
    batch_norm,
    batch_norm_of,
    conv,
    conv_norm_act,
    depthwise_conv,
    layer_norm,
    max_pool,
    patchify,
    tap,
)
from kvision.blocks.csp import base_conv, csp_layer, focus, separable_conv, spp_bottleneck
from kvision.blocks.fpn import feature_pyramid
from kvision.blocks.mobile import (
    BlockContext,
    Row,
    conv_block,
    fused_inverted_residual,
    head,
    inverted_residual,
    residual,
    stages,
    stem,
)
from kvision.blocks.pan import path_aggregation
from kvision.blocks.recurrent import recurrent
from kvision.blocks.segmentation import atrous_pyramid, fcn_head, head_norm, lite_head, resize_to_image
from kvision.blocks.squeeze_excite import mbconv_squeeze, squeeze_excite
from kvision.blocks.stochastic_depth import drop_path_rates
from kvision.blocks.transformer import (
    classify_token,
    encoder_block,
    patch_merging,
    swin_block,
    swin_v2_block,
)
from kvision.blocks.width import dilated, make_divisible

__all__ = [
    "BlockContext",
    "ConvRow",
    "Row",
    "activate",
    "atrous_pyramid",
    "base_conv",
    "basic_block",
    "batch_norm",
    "batch_norm_of",
    "bottleneck",
    "classic_stages",
    "classify_token",
    "conv",
    "conv_block",
    "conv_norm_act",
    "csp_layer",
    "depthwise_conv",
    "dilated",
    "drop_path_rates",
    "encoder_block",
    "fcn_head",
    "feature_pyramid",
    "focus",
    "fused_inverted_residual",
    "head",
    "head_norm",
    "hidden_layers",
    "inverted_residual",
    "layer_norm",
    "lite_head",
    "make_divisible",
    "max_pool",
    "mbconv_squeeze",
    "patch_merging",
    "patchify",
    "path_aggregation",
    "recurrent",
    "residual",
    "resize_to_image",
    "separable_conv",
    "spp_bottleneck",
    "squeeze_excite",
    "stages",
    "stem",
    "swin_block",
    "swin_v2_block",
    "tap",
]
