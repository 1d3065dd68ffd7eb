"""Weights into networks, and back into files."""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import safetensors
import safetensors.numpy

from kvision.errors import UserError
from kvision.spec import Weights
from kvision.weights import _fetch
from kvision.weights._keras import tensors_of
from kvision.weights._parameters import behind_trunk, classifiers, first_convolution, parameters

LOG = logging.getLogger("kvision")
IGNORED = ("num_batches_tracked", "relative_position_index", "attn_mask")  # buffers without a counterpart
SIDES = ("aux1.", "aux2.", "AuxLogits.")  # side classifiers, which a network has in training at most


def load(model: keras.Model, source, *, include_top: bool = True) -> None:
    """Puts weights into a network, all or none, and adapts them to it.

    What may differ: the number of classes (the classifier keeps its fresh weights), the number of input
    channels (the kernels of the first convolution are repeated in turn and scaled), the size of the image
    (position embeddings and tables of relative positions are resampled). What was adapted is logged.

    Args:
        model: a network of kvision.
        source: one of

            - a row of `kvision.list_weights()`;
            - "hf-hub:OWNER/REPOSITORY", "keras:APPLICATION", or the URL of a `.pth` file whose name ends
              with the first digits of its SHA-256;
            - the path of a `.safetensors`, `.pth` or `.bin` file with PyTorch's names and layout, as in
              timm's checkpoints (no pickle is executed), or a mapping of such names to arrays;
            - the path of a `.weights.h5` or `.keras` file that Keras saved from the same network.

        include_top: False where the top will be cut off: its weights are then not missed.

    Raises:
        OSError: there is no such file, or it cannot be downloaded.
        ValueError: the file cannot be read, or its weights are not those of this network: the message names
            what is missing, left over or misshapen. The model is left as it was.
    """
    if isinstance(source, Mapping):
        return _assign(model, source, "the mapping", include_top)
    columns = (isinstance(source, Weights) and source.columns) or {}
    source = source.source if isinstance(source, Weights) else str(source)
    if source.startswith(_fetch.KERAS):
        keras_model = _fetch.application(source, columns.get("width_multiplier", 1.0))
        return _assign(model, tensors_of(model, keras_model), source, include_top)
    if not source.startswith(_fetch.SCHEMES) and not source.endswith(_fetch.ENDINGS):
        raise UserError(
            f"`weights` must be a mapping or the path of a {', '.join(_fetch.ENDINGS)} file; got {source!r}."
        )
    path = _fetch.local(source)
    if path.endswith(".weights.h5"):
        return _load_h5(model, path)
    tensors = _read_keras(path) if path.endswith(".keras") else _fetch.read(path)
    return _assign(model, tensors, repr(source), include_top)


def from_keras(model: keras.Model, keras_model: keras.Model) -> None:
    """Copies the weights of a network of keras.applications into the same network of kvision.

    Normalisation is not copied: kvision's networks take pixels, and have their own.

    Args:
        model: a network of kvision, with its top.
        keras_model: of keras.applications, with its top. Another number of classes or channels is adapted to.

    Raises:
        ValueError: it is another network (ResNet is: its 1 x 1 convolutions stride and have biases); the
            message says what differs first.
    """
    _assign(model, tensors_of(model, keras_model), f"keras.applications' {keras_model.name}", True)


def save(model: keras.Model, path) -> None:
    """Writes a network's weights to a `.safetensors` file that timm loads: its names, layout and buffers.

    Raises:
        ValueError: `path` does not end with .safetensors.
        OSError: it cannot be written; nothing is left half-written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"`path` must end with .safetensors; got {str(path)!r}.")
    tensors = {
        name: np.ascontiguousarray(value, np.float32 if value.dtype.name == "bfloat16" else None)
        for name, value in state_dict(model).items()
    }
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            tensors[f"{layer.name}.num_batches_tracked"] = np.zeros((), np.int64)
    beside = path.with_name(f".{path.name}.part")
    try:
        safetensors.numpy.save_file(tensors, beside, {"format": "pt"})
        os.replace(beside, path)
    except safetensors.SafetensorError as error:
        raise OSError(f"{str(path)!r} cannot be written: {error}") from None
    finally:
        beside.unlink(missing_ok=True)


def state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """A network's weights as `load` takes them: PyTorch's names and layout."""
    return {
        name: np.transpose(keras.ops.convert_to_numpy(variable), axes)
        for name, (variable, axes, _) in parameters(model).items()
    }


def _assign(model: keras.Model, tensors: Mapping, origin: str, include_top: bool) -> None:
    wanted = parameters(model)
    given = {name: np.asarray(value) for name, value in tensors.items() if not name.endswith(IGNORED)}
    leftover = [name for name in given if name not in wanted and not name.startswith(SIDES)]
    heads = classifiers(model) if include_top else behind_trunk(model)
    fresh, adapted, missing, misshapen = set(), [], [], []
    values = {}
    for name, (variable, axes, layer) in wanted.items():
        expected = tuple(variable.shape[i] for i in axes)
        tensor = _fitted(name, given[name], expected, layer, model, adapted) if name in given else None
        if tensor is not None:
            values[name] = tensor
        elif layer.name in heads:
            fresh.add(layer.name)
        elif name in given:
            misshapen.append(f"{name} is {given[name].shape} instead of {expected}")
        else:
            missing.append(name)
    faults = [
        f"{len(names)} {fault} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for fault, names in (("missing", missing), ("left over", leftover), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise UserError(
            f"`weights`: {origin} does not fit {model.name}: of its {len(wanted)} parameters, "
            f"{'; '.join(faults)}."
        )
    for name, tensor in values.items():
        variable, axes, layer = wanted[name]
        if layer.name not in fresh:
            variable.assign(np.transpose(tensor, np.argsort(axes)))
    if fresh and include_top:
        adapted.append(f"the classifier {' and '.join(map(repr, sorted(fresh)))} keeps its fresh weights")
    if adapted:
        LOG.warning("%s: of %s, %s.", model.name, origin, ", ".join(dict.fromkeys(adapted)))


def _fitted(name, tensor, expected: tuple, layer, model, adapted: list):
    """The tensor in the shape that is expected, None where that cannot be; `adapted` gets what was done.

    PyTorch flattens a map channel by channel, so a dense layer's kernel behind it is a convolution's over
    the map. Layers with tables of positions resample those of other sizes.
    """
    if tensor.shape == expected:
        return tensor
    if tensor.ndim == 2 and len(expected) == 4 and tensor.shape == (expected[0], math.prod(expected[1:])):
        return np.reshape(tensor, expected)
    if (
        layer is first_convolution(model)
        and tensor.ndim == 4
        and (tensor.shape[0], *tensor.shape[2:]) == (expected[0], *expected[2:])
    ):
        channels, given = expected[1], tensor.shape[1]
        adapted.append(f"the first kernels of {given} channels were repeated for {channels}")
        return tensor[:, np.arange(channels) % given] * np.float32(given / channels)
    if hasattr(layer, "resample") and (resampled := layer.resample(name, tensor)) is not None:
        adapted.append(
            f"the positions were resampled for {model.input_shape[1]} x {model.input_shape[2]} pixels"
        )
        return resampled
    return None


def _read_keras(path):
    try:
        return state_dict(keras.saving.load_model(path, compile=False))
    except Exception as error:
        raise _fetch.unreadable(path, error) from None


def _load_h5(model, path):
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:
        model.set_weights(before)
        raise _fetch.unreadable(path, error, f"into {model.name}") from None
