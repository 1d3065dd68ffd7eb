"""Rounding of channel counts, and strides that become dilations."""

from collections.abc import Iterable

from kvision.errors import UserError


def make_divisible(filters: float, divisor: int = 8, least: float = 0.9) -> int:
    """`filters` to the nearest multiple of `divisor`, never less than `least` of it.

    Source: the `_make_divisible` of Google's MobileNet code, used by MobileNet v2 to v4 and EfficientNet
    (in EfficientNetV2 without a least share).
    """
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * filters else rounded


def dilated(strides: Iterable[int], *, stride: int, output_stride: int) -> list[tuple[int, int]]:
    """The strides and dilation of each stage of a network whose last map shall not be smaller.

    Where a stage would pass the output stride, it keeps the size, and it and all after it dilate instead
    (Chen et al. 2017, https://arxiv.org/abs/1706.05587, section 3.1).

    Args:
        strides: of the stages as published, 1 or 2 each.
        stride: in front of the first stage.
        output_stride: of the last map, 8, 16 or 32.
    """
    if output_stride not in (8, 16, 32):
        raise UserError(f"`output_stride` must be 8, 16 or 32; got {output_stride}.")
    stages, dilation = [], 1
    for published in strides:
        if stride * published > output_stride:
            dilation *= published
            stages.append((1, dilation))
        else:
            stride *= published
            stages.append((published, dilation))
    return stages
