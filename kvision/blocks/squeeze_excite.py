"""Squeeze-and-excitation (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

import keras

from kvision.blocks.conv import activate, conv


def squeeze_excite(x, *, filters, activation, gate, name):
    """Scales each channel by a gate that is computed from all channels' means.

    Args:
        x: `(batch, H, W, C)`.
        filters: channels of the squeezed vector.
        activation: of the squeezed vector.
        gate: activation of the C gates: "sigmoid" or "hard_sigmoid".
        name: prefix of the layers' names.

    Returns:
        `(batch, H, W, C)`.
    """
    gates = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.pool")(x)
    gates = conv(gates, filters=filters, use_bias=True, name=f"{name}.conv_reduce")
    gates = activate(gates, activation=activation, name=f"{name}.act")
    gates = conv(gates, filters=x.shape[-1], use_bias=True, name=f"{name}.conv_expand")
    gates = activate(gates, activation=gate, name=f"{name}.gate")
    return keras.layers.Multiply(name=f"{name}.scale")([x, gates])


def mbconv_squeeze(x, *, block_filters, name):
    """EfficientNet's, which squeezes to a quarter of the block's input, not of the expanded channels."""
    return squeeze_excite(
        x, filters=max(1, block_filters // 4), activation="swish", gate="sigmoid", name=name
    )
