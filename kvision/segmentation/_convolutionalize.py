"""Classifiers as fully convolutional networks (Long et al. 2015, https://arxiv.org/abs/1411.4038, 3.1)."""

import keras

from kvision._backbones import OF_FIXED_SIZE, check_network, rebuilt
from kvision.errors import UserError

KEPT = (  # layers of a top that answer for each place alone
    keras.layers.Activation, keras.layers.BatchNormalization, keras.layers.Conv2D, keras.layers.Dropout,
    keras.layers.Identity, keras.layers.LayerNormalization,
)  # fmt: skip


def convolutionalize(classifier: keras.Model) -> keras.Model:
    """The classifier for images of any size, as a network that answers for each window.

    Dense layers become convolutions, and the pooling of a whole map that of a window as large. For an image
    of the classifier's size the answers are the same. For a larger image they are those of a window that
    slides over it in steps of the last map's stride, with one difference: convolutions that pad see the
    image around the window, and squeeze-and-excitation sees the whole image.

    Args:
        classifier: a network of kvision with a top, of fixed input size. An auxiliary head is left out.

    Returns:
        A model from pixels `(batch, height, width, channels)` to `(batch, rows, columns, classes)`, with
        copies of the weights.

    Raises:
        ValueError: the classifier is not a network of kvision, has no fixed size or no top, or is a
            Transformer over tokens or windows of a fixed number.
    """
    check_network(classifier, "classifier")
    name, output = classifier.name, classifier.output
    if isinstance(output, dict):
        output = output["predictions"]
    if len(output.shape) != 2 or output is classifier.get_layer("trunk").output:
        raise UserError(f"`classifier` must have a top; {name} ends in {tuple(output.shape)}.")
    if None in classifier.input_shape[1:]:
        raise UserError(f"`classifier` must be of fixed size, that of a window; {name} takes any size.")
    network = keras.Model(classifier.input, output, name=name)
    trunk = keras.Model(network.input, network.get_layer("trunk").output)
    if fixed := next((layer for layer in trunk.layers if isinstance(layer, OF_FIXED_SIZE)), None):
        raise UserError(
            f"{name} cannot be convolutional: its {type(fixed).__name__} {fixed.name!r} needs a fixed size."
        )
    top = {layer.name for layer in network.layers} - {layer.name for layer in trunk.layers}

    def make(layer):
        return _in_place_of(layer, name) if layer.name in top else None

    return rebuilt(network, (None, None, network.input_shape[-1]), make=make)


def _in_place_of(layer, name) -> keras.layers.Layer | None:
    """The layer of the top that answers at each place; None where it does already."""
    keywords = {"dtype": layer.dtype_policy, "name": layer.name}
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return keras.layers.AveragePooling2D(layer.input.shape[1:3], 1, **keywords)
    if isinstance(layer, keras.layers.GlobalMaxPooling2D):
        return keras.layers.MaxPooling2D(layer.input.shape[1:3], 1, **keywords)
    if isinstance(layer, keras.layers.Flatten) and layer.input.shape[1:3] in ((1, 1), layer.input.shape[1:2]):
        return keras.layers.Identity(**keywords)
    if isinstance(layer, keras.layers.Dense):
        activation, use_bias = layer.activation, layer.use_bias
        return keras.layers.Conv2D(layer.units, 1, activation=activation, use_bias=use_bias, **keywords)
    if isinstance(layer, KEPT):
        return None
    raise UserError(f"{name} cannot be convolutional: its top has the {type(layer).__name__} {layer.name!r}.")
