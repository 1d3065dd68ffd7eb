"""Building blocks: functions from tensor to tensor, named after the parameters they create."""

from kvision.blocks.conv import activate, batch_norm, conv, conv_norm_act, depthwise_conv, tap
from kvision.blocks.mobile import Row, conv_block, inverted_residual, stages
from kvision.blocks.squeeze_excite import squeeze_excite
from kvision.blocks.width import make_divisible

__all__ = [
    "Row",
    "activate",
    "batch_norm",
    "conv",
    "conv_block",
    "conv_norm_act",
    "depthwise_conv",
    "inverted_residual",
    "make_divisible",
    "squeeze_excite",
    "stages",
    "tap",
]
