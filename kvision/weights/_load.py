"""Weights from a mapping, a `.safetensors`, a `.weights.h5` or a `.keras` file.

Layer names are the reference checkpoints' parameter paths, so all that differs is the last part of
a name and the layout of kernels.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy

NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)
NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
IGNORED = "num_batches_tracked"  # a buffer of PyTorch's batch norm without a counterpart


def load(model: keras.Model, source) -> None:
    """Puts weights into a network, all or none.

    Args:
        model: a network of kvision.
        source: a mapping of parameter names to arrays in PyTorch's names and layout, as in timm's
            checkpoints; the path of a `.safetensors` file of the same kind; or the path of a
            `.weights.h5` or `.keras` file that Keras saved from the same network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or its weights are not those of this network: the
            message names what is missing, left over or misshapen. The model is left as it was.
    """
    if isinstance(source, Mapping):
        return _assign(model, source, "the mapping")
    readers = {".safetensors": _load_safetensors, ".weights.h5": _load_h5, ".keras": _load_keras}
    for ending, reader in readers.items():
        if str(source).endswith(ending):
            if not Path(source).is_file():
                raise FileNotFoundError(f"`weights`: there is no file {str(source)!r}.")
            return reader(model, str(source))
    raise ValueError(
        f"`weights` must be a mapping or the path of a {', '.join(readers)} file; got {str(source)!r}."
    )


def state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """A network's weights as `load` takes them: PyTorch's names and layout."""
    return {
        name: np.transpose(variable.numpy(), axes) for name, (variable, axes, _) in _parameters(model).items()
    }


def _parameters(model) -> dict:
    """Each parameter by its reference name: the variable, its axes in PyTorch's order, and its layer."""
    parameters = {}
    for layer in model.layers:
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
            parameters[path if bare else f"{path}.{last}"] = (variable, axes, layer)
    return parameters


def _assign(model, tensors: Mapping, origin: str) -> None:
    parameters = _parameters(model)
    given = {name: np.asarray(value) for name, value in tensors.items() if not name.endswith(IGNORED)}
    missing = [name for name in parameters if name not in given]
    leftover = sorted(given.keys() - parameters.keys())
    misshapen = []
    for name in parameters.keys() & given.keys():
        variable, axes, layer = parameters[name]
        expected = tuple(variable.shape[i] for i in axes)
        tensor = _fitted(name, given[name], expected, layer)
        if tensor is None:
            misshapen.append(f"{name} is {given[name].shape} instead of {expected}")
        given[name] = tensor
    faults = [
        f"{len(names)} {fault} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for fault, names in (("missing", missing), ("left over", leftover), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise ValueError(
            f"`weights`: {origin} does not fit {model.name}: of its {len(parameters)} parameters, "
            f"{'; '.join(faults)}."
        )
    for name, (variable, axes, _) in parameters.items():
        variable.assign(np.transpose(given[name], np.argsort(axes)))


def _fitted(name, tensor, expected: tuple, layer):
    """The tensor in the shape that is expected, None where that cannot be.

    PyTorch flattens a map channel by channel, so a dense layer's kernel behind it is a convolution's over
    the map. Layers with tables of positions resample those of other sizes.
    """
    if tensor.shape == expected:
        return tensor
    if tensor.ndim == 2 and len(expected) == 4 and tensor.shape == (expected[0], math.prod(expected[1:])):
        return np.reshape(tensor, expected)
    return layer.resample(name, tensor) if hasattr(layer, "resample") else None


def _load_safetensors(model, path):
    try:
        tensors = safetensors.numpy.load_file(path)
    except Exception as error:
        raise _unreadable(path, error) from None
    _assign(model, tensors, repr(path))


def _load_keras(model, path):
    try:
        saved = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise _unreadable(path, error) from None
    _assign(model, state_dict(saved), repr(path))


def _load_h5(model, path):
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:
        model.set_weights(before)
        raise _unreadable(path, error, f"into {model.name}") from None


def _unreadable(path, error, where="") -> ValueError:
    """One sentence for whatever a damaged file makes its reader raise."""
    reason = str(error).strip().splitlines()[0].rstrip(".")
    return ValueError(f"`weights`: {path!r} cannot be read{where and ' ' + where}: {reason}.")
