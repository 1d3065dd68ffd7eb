"""The parameters of a network under the names and in the layout of the reference checkpoints."""

import keras

from kvision._nested import check_model
from kvision.errors import UserError
from kvision.keras_internals import calls, inputs_of, producer

NORMS = (
    keras.layers.BatchNormalization, keras.layers.GroupNormalization, keras.layers.LayerNormalization,
)  # fmt: skip
NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def parameters(model: keras.Model) -> dict:
    """Each parameter by its reference name: the variable, its axes in PyTorch's order, and its layer."""
    check_model(model)
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model) and layer.weights:
            raise UserError(
                f"{model.name} holds the network {layer.name!r}: give that one, which has the names."
            )
        for variable in layer.weights:
            path, _, last = variable.path.replace("/", ".").rpartition(".")
            axes = tuple(range(len(variable.shape)))
            if isinstance(layer, NORMS):
                last = NORM_NAMES[last]
            elif last == "kernel":
                last = "weight"
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    axes = (2, 3, 0, 1)  # (height, width, in, multiplier)
                else:
                    axes = (len(axes) - 1, len(axes) - 2, *axes[:-2])  # (..., in, out)
            bare = path.rpartition(".")[2] == last  # a parameter of the network itself, such as "cls_token"
            name = path if bare else f"{path}.{last}"
            if name in found:
                raise UserError(
                    f"{model.name} has two parameters of the name {name!r}: give networks one by one."
                )
            found[name] = (variable, axes, layer)
    return found


def classifiers(model: keras.Model) -> set[str]:
    """The names of the layers whose weights depend on the number of classes.

    They are the dense layers behind which there are no other weights. In a network that answers for each
    pixel, or with boxes, they are such convolutions of its head, and the transposed convolutions that enlarge
    the answers.
    """
    outputs = keras.tree.flatten(model.outputs)
    maps = len(outputs[0].shape) > 2 and any(layer.name == "trunk" for layer in model.layers)
    head = behind_trunk(model) if maps else set()
    found, todo = set(), [producer(output)[0] for output in outputs]
    while todo:
        layer = todo.pop()
        enlarges = isinstance(layer, keras.layers.Conv2DTranspose)
        in_head = isinstance(layer, keras.layers.Conv2D) and layer.name in head
        if enlarges or in_head or isinstance(layer, keras.layers.Dense):
            found.add(layer.name)
        if enlarges or not layer.weights:
            todo += [producer(tensor)[0] for call in calls(layer) for tensor in inputs_of(layer, call)]
    return found


def behind_trunk(model: keras.Model) -> set[str]:
    """The names of the layers of the top, and of auxiliary heads."""
    trunk = keras.Model(model.inputs, model.get_layer("trunk").output)
    return {layer.name for layer in model.layers} - {layer.name for layer in trunk.layers}


def first_convolution(model: keras.Model) -> keras.layers.Conv2D | None:
    """The layer whose kernels are as deep as the image."""
    return next((layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)), None)
