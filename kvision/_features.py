"""The feature pyramid of any model, and the attention of Transformers."""

from collections.abc import Sequence

import keras

from kvision.errors import UserError
from kvision.layers import AttentionShares, MultiHeadSelfAttention, TokenTap
from kvision.spec import did_you_mean


def features(model: keras.Model, names: Sequence[str] = ("c3", "c4", "c5")) -> keras.Model:
    """The network up to its taps.

    Args:
        model: a network of kvision, with or without a top. The weights are shared with it.
        names: taps: `c1` to `c5` are the last tensors at strides 2 to 32, before a head convolution. A ViT
            has the one that is nearest to its patch size.

    Returns:
        A model from the same pixels to a dict of the feature maps by name, each
        `(batch, height / stride, width / stride, channels)`.

    Raises:
        ValueError: the model has no layer of such a name.
    """
    layers = {layer.name: layer for layer in model.layers}
    for name in names:
        if name not in layers:
            taps = [known for known in layers if known[0] == "c" and known[1:].isdigit()]
            raise UserError(f"{model.name} has no tap {name!r}. {did_you_mean(name, taps)}")
    outputs = {}
    for name in names:
        layer = layers[name]
        outputs[name] = layer.feature_map(layer.output) if isinstance(layer, TokenTap) else layer.output
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def attention_maps(model: keras.Model) -> keras.Model:
    """Where each block of a Transformer looks.

    Args:
        model: a network with `kvision.layers.MultiHeadSelfAttention`, a ViT or DeiT. The weights are shared
            with it.

    Returns:
        A model from the same pixels to `(batch, blocks, heads, tokens, tokens)`: the share of attention that
        each token (last axis but one) pays to each other; the last axis sums to 1. Prefix tokens, such as
        the class token, come first.

    Raises:
        ValueError: the model has no such layer.
    """
    layers = [layer for layer in model.layers if isinstance(layer, MultiHeadSelfAttention)]
    if not layers:
        raise UserError(f"{model.name} has no self-attention over all tokens; a ViT or DeiT has.")
    maps = [AttentionShares(layer, name=f"{layer.name}.shares")(layer.input) for layer in layers]
    return keras.Model(model.input, keras.ops.stack(maps, axis=1), name=f"{model.name}_attention")
