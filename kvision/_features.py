"""The feature pyramid of any model, and the attention of Transformers."""

import re
import reprlib
from collections.abc import Collection

import keras

from kvision._nested import networks, part_of
from kvision.errors import UserError
from kvision.layers import AttentionShares, MultiHeadSelfAttention, TokenTap
from kvision.spec import nearest


def features(model: keras.Model, names: str | Collection[str] = ("c3", "c4", "c5")) -> keras.Model:
    """The network up to its taps.

    Args:
        model: a network of kvision, with or without a top, or a functional or sequential model that has one
            as a layer. The weights are shared with it.
        names: one tap or several: `c1` to `c5` are the last tensors at strides 2 to 32, before a head
            convolution. A ViT has only the one that is nearest to its patch size.

    Returns:
        A model from the same pixels to a dict of the feature maps by name, each
        `(batch, height / stride, width / stride, channels)`.

    Raises:
        ValueError: the model has no layer of such a name, or several networks that do.
    """
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise UserError(f"`names` must be taps such as ('c3', 'c4', 'c5'); got {reprlib.repr(names)}.")

    def fits(network):
        return any(layer.name in names for layer in network.layers)

    def pyramid(network):
        layers = {layer.name: layer for layer in network.layers}
        for name in names:
            if name not in layers:
                raise _no_tap(network, name)
        outputs = {}
        for name in names:
            layer = layers[name]
            outputs[name] = layer.feature_map(layer.output) if isinstance(layer, TokenTap) else layer.output
        return keras.Model(network.input, outputs, name=f"{network.name}_features")

    if not names:
        raise UserError("`names` must name at least one tap, such as 'c5'.")
    if not networks(model, fits):
        raise _no_tap(model, next(iter(names)))
    return part_of(model, fits, pyramid)


def _no_tap(model, name) -> UserError:
    taps = {layer.name for network in networks(model, _taps) for layer in _taps(network)}
    if not taps:
        return UserError(f"{model.name} has no taps, and so no {name!r}: only networks of kvision have them.")
    valid = f"Its taps: {', '.join(sorted(taps))}."
    return UserError(f"{model.name} has no tap {name!r}. {nearest(name, taps)} {valid}".replace("  ", " "))


def _taps(network) -> list[keras.layers.Layer]:
    return [layer for layer in network.layers if re.fullmatch(r"c\d", layer.name)]


def attention_maps(model: keras.Model) -> keras.Model:
    """The attention of each block of a Transformer.

    Args:
        model: a network with `kvision.layers.MultiHeadSelfAttention`, a ViT or DeiT, or a functional or
            sequential model that has one as a layer. The weights are shared with it.

    Returns:
        A model from the same pixels to `(batch, blocks, heads, tokens, tokens)`: the share of attention that
        each token (last axis but one) pays to each other; the last axis sums to 1. Prefix tokens, such as
        the class token, come first.

    Raises:
        ValueError: the model has no such layer.
    """
    if not networks(model, _attentions):
        raise UserError(f"{model.name} has no self-attention over all tokens; a ViT or DeiT has.")

    def maps(network):
        shares = [
            AttentionShares(layer, name=f"{layer.name}.shares")(layer.input) for layer in _attentions(network)
        ]
        return keras.Model(network.input, keras.ops.stack(shares, axis=1), name=f"{network.name}_attention")

    return part_of(model, _attentions, maps)


def _attentions(network) -> list[keras.layers.Layer]:
    return [layer for layer in network.layers if isinstance(layer, MultiHeadSelfAttention)]
