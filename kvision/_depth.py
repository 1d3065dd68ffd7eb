"""Layers grouped by depth: what fine-tuning freezes, or trains at a lower rate."""

import posixpath
import re

import keras

from kvision._nested import networks
from kvision.errors import UserError


def depth_groups(model: keras.Model) -> list[list[str]]:
    """The layers that own weights, from the input to the output.

    Layer-wise learning rates go by such groups: Clark et al. 2020 (ELECTRA, https://arxiv.org/abs/2003.10555)
    and Bao et al. 2021 (BEiT, https://arxiv.org/abs/2106.08254). The first group is the stem, with tokens and
    position embeddings; then comes one for each block, which a downsampling before it joins, as in timm. In
    a chain without numbered blocks each convolution is one, with the norm after it.

    Args:
        model: a network of kvision, with or without a top, also one read from a `.keras` file.

    Returns:
        Names of layers. The last group is the top and auxiliary heads; it is empty without a top.

    Raises:
        ValueError: the model is not a network of kvision: it has no layer `trunk`, or a network inside it
            has.
    """
    inside = networks(model, lambda network: any(layer.name == "trunk" for layer in network.layers))
    if not inside:
        raise UserError(f"{model.name} has no layer `trunk`, by which a trunk is told from its top.")
    if inside != [model]:
        names = " or ".join(repr(network.name) for network in inside)
        raise UserError(
            f"{model.name} has its layer `trunk` in the network {names}, which is a layer of it: pass that "
            "network, whose names the groups are made of."
        )
    trunk = keras.Model(model.input, model.get_layer("trunk").output, name=f"{model.name}_trunk")
    groups: list[list[str]] = []
    last = ""
    for layers in _stretches(trunk):
        names = [layer.name for layer in layers]
        block = _block(names)
        kernels = any(weight.name == "kernel" for layer in layers for weight in layer.weights)
        closes = block in names and not kernels  # a norm or an embedding outside of blocks
        if groups and (closes or f"{block}.".startswith(f"{last}.")):
            groups[-1] += names
        else:
            groups.append(names)
        last = last if closes else block
    below = {name for names in groups for name in names}
    return [*groups, [layer.name for layer in model.layers if layer.weights and layer.name not in below]]


def _stretches(trunk) -> list[list[keras.layers.Layer]]:
    """The layers with weights between places that a single tensor passes, such as a residual's."""
    last_use = {
        id(tensor): i for i, op in enumerate(trunk.operations) for tensor in keras.tree.flatten(op.input)
    }
    stretches, layers, until = [], [], 0
    for i, op in enumerate(trunk.operations):
        if isinstance(op, keras.layers.Layer) and op.weights:
            layers.append(op)
        if until <= i and layers:
            stretches.append(layers)
            layers = []
        until = max(until, *(last_use.get(id(tensor), 0) for tensor in keras.tree.flatten(op.output)))
    return stretches


def _block(names: list[str]) -> str:
    """The common prefix of names, to its last number: `layer1.0` for `layer1.0.conv1`, `layer1.0.bn1`."""
    path = posixpath.commonpath([name.replace(".", "/") for name in names]) + "/" * (len(names) > 1)
    numbered = re.match(r"(.*\d[^/]*)/", path)
    return (numbered[1] if numbered else path).replace("/", ".")
