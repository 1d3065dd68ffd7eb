"""The formula behind the golden logits: an image and weights that follow from names and shapes alone."""

import zlib

import numpy as np


def formula_image(height, width):
    """A uint8 image `(height, width, 3)`."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return np.floor(127.5 + 127.5 * np.sin(0.05 * (c + 1) * x + 0.03 * (c + 2) * y + c)).astype(np.uint8)


def formula_weights(shapes, gain):
    """Weights by name, in PyTorch's layout, for shapes by name."""
    return {name: _tensor(name, shape, gain).astype(np.float32) for name, shape in shapes.items()}


def _tensor(name, shape, gain):
    r = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.rpartition(".")[2]
    if last == "running_var":
        return np.exp(0.2 * r)
    if last == "running_mean":
        return 0.1 * r
    if last == "bias":
        return 0.1 * r + 2 * name.endswith("se.conv_expand.bias")
    if last == "gamma":
        return 0.5 + 0.1 * r
    if last in ("cls_token", "dist_token", "pos_embed", "relative_position_bias_table"):
        return 0.5 * r
    if len(shape) == 1:
        return 1 + 0.1 * r
    return r * gain / np.sqrt(np.prod(shape[1:]))
