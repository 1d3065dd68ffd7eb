"""The schedule of stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382, section 3)."""


def drop_path_rates(rate: float, blocks: int, *, last_has_rate: bool = True) -> list[float]:
    """The rate of each block; it grows linearly from 0 at the first.

    Args:
        rate: `drop_path_rate` of a network.
        blocks: how many blocks the network has.
        last_has_rate: whether the last block has `rate`, as in timm's ViT, Swin and ConvNeXt. Else block i,
            counted from 0, has rate * i / blocks, as in the released code of EfficientNet and in timm's
            mobile networks.
    """
    steps = max(1, blocks - 1) if last_has_rate else blocks
    return [rate * i / steps for i in range(blocks)]
