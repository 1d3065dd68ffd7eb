"""Feature pyramid network (Lin et al. 2016, https://arxiv.org/abs/1612.03144), named as in torchvision."""

import keras

from kvision.blocks.conv import conv
from kvision.layers import ResizeLike


def feature_pyramid(maps, *, filters, norm=None, name):
    """Maps of several strides that each know of the coarser ones, and one more of twice the last stride.

    Args:
        maps: a list of `(batch, height, width, channels)`, the finest first.
        filters: of each map of the pyramid.
        norm: `norm(x, name=...)` behind each convolution; None for biases.
        name: prefix of the layers' names.

    Returns:
        A list of `(batch, height, width, filters)`; the last has every second row and column of the one
        before.
    """

    def block(x, kernel_size, path):
        keywords = {"filters": filters, "kernel_size": kernel_size, "use_bias": norm is None}
        x = conv(x, **keywords, initializer=_initializer, name=f"{name}.{path}.0")
        return norm(x, name=f"{name}.{path}.1") if norm else x

    pyramid, coarser = [], None
    for level in reversed(range(len(maps))):
        x = block(maps[level], 1, f"inner_blocks.{level}")
        if coarser is not None:
            coarser = ResizeLike("nearest", name=f"{name}.resize.{level}")(coarser, x)
            x = keras.layers.Add(name=f"{name}.add.{level}")([x, coarser])
        coarser = x
        pyramid.insert(0, block(x, 3, f"layer_blocks.{level}"))
    return [*pyramid, keras.layers.MaxPooling2D(1, 2, name=f"{name}.pool")(pyramid[-1])]


def _initializer():
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
