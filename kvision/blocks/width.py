"""Rounding of channel counts."""


def make_divisible(filters: float, divisor: int = 8, least: float = 0.9) -> int:
    """`filters` to the nearest multiple of `divisor`, never less than `least` of it.

    Source: the `_make_divisible` of Google's MobileNet code, used by MobileNet v2 to v4 and EfficientNet
    (in EfficientNetV2 without a least share).
    """
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * filters else rounded
