"""How many classes weights are for, before a network is built for them."""

import h5py
import keras

from kvision.errors import UserError
from kvision.weights import _fetch
from kvision.weights._find import rows_of
from kvision.weights._load import _read_keras
from kvision.weights._parameters import classifiers, parameters


def is_file(weights: str, model: str) -> bool:
    """Whether weights are a file or a repository that is not in the table, which alone says its classes."""
    return weights.endswith(_fetch.ENDINGS) or (
        weights.startswith(_fetch.HUB) and all(row.source != weights for row in rows_of(model))
    )


def num_classes(model: keras.Model, source: str) -> int:
    """The number of classes of a network's weights.

    Args:
        model: the network with its top, for any number of classes.
        source: a file or a repository, as `kvision.weights.load` takes it.

    Raises:
        UserError: a classifier's weights are missing, or have another form: `load` would leave it fresh.
        OSError: there is no such file, or it cannot be downloaded.
    """
    path = _fetch.local(source)
    if path.endswith(".weights.h5"):
        shapes = _shapes_of_h5(path)
    else:
        tensors = _read_keras(path) if path.endswith(".keras") else _fetch.read(path)
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    heads, classes = classifiers(model), set()
    for name, (variable, axes, layer) in parameters(model).items():
        if layer.name in heads:
            inputs = [variable.shape[i] for i in axes[1:]]
            there = [shape for key, shape in shapes.items() if f".{key}".endswith(f".{name}")]
            classes |= {shape[0] if list(shape[1:]) == inputs else None for shape in there or [(None,)]}
    if len(classes) != 1 or None in classes:
        raise UserError(
            f"`weights`: {source!r} has no classifier that fits {model.name}: its answers would mean nothing."
        )
    return int(classes.pop())


def _shapes_of_h5(path) -> dict[str, tuple[int, ...]]:
    """The shapes of dense layers' weights in a `.weights.h5` file, by PyTorch's names and in its layout."""
    shapes = {}

    def note(_, item):
        name = item.attrs.get("name")
        if isinstance(name, str) and isinstance(item, h5py.Group):
            for key, last in (("0", "weight"), ("1", "bias")):
                if isinstance(item.get(key), h5py.Dataset):
                    shapes[f"{name}.{last}"] = item[key].shape[::-1]

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except Exception as error:
        raise _fetch.unreadable(path, error) from None
    return shapes
