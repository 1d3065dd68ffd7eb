"""The feature pyramid of any model."""

from collections.abc import Sequence

import keras

from kvision.spec import did_you_mean


def features(model: keras.Model, names: Sequence[str] = ("c3", "c4", "c5")) -> keras.Model:
    """The network up to its taps.

    Args:
        model: a network of kvision, with or without a top. The weights are shared with it.
        names: taps: `c1` to `c5` are the last tensors at strides 2 to 32, before a head convolution.

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
            raise ValueError(f"{model.name} has no tap {name!r}. {did_you_mean(name, taps)}")
    outputs = {name: layers[name].output for name in names}
    return keras.Model(model.input, outputs, name=f"{model.name}_features")
