"""Weights into networks, and back into files."""

import json
import logging
import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from kvision._nested import check_model
from kvision.errors import UserError
from kvision.files import replacing
from kvision.keras_internals import producer
from kvision.spec import Preprocess, Weights
from kvision.weights import _fetch, _settings
from kvision.weights._h5 import by_reference_names
from kvision.weights._keras import tensors_of
from kvision.weights._parameters import behind_trunk, classifiers, first_convolution, parameters
from kvision.weights._states import IGNORED, fitting

LOG = logging.getLogger("kvision")
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")  # auxiliary heads, at most for training


def load(
    model: keras.Model,
    source,
    *,
    include_top: bool = True,
    fresh_classifier: bool = True,
    allow_nonfinite: bool = False,
    any_preprocess: bool = False,
) -> None:
    """Puts weights into a network, all or none, and adapts them to it.

    What may differ: the number of classes (the classifier keeps its fresh weights), the number of input
    channels (the kernels of the first convolution are repeated in turn, or cut, and scaled), the size of the
    image (position embeddings and tables of relative positions are resampled). What was adapted is logged.

    Weights fit only the settings that they were trained with, such as `padding`, `norm_epsilon`, `num_heads`
    or the normalisation. `.keras` files and the `.safetensors` files of `kvision.weights.save` hold them, and
    are refused where the network has others. Other files (`.weights.h5`, PyTorch's), mappings and rows do
    not: there only the names and shapes of the weights are checked. A builder's `weights=` also checks the
    columns of published rows.

    Args:
        model: a network of kvision.
        source: one of

            - a row of `kvision.list_weights()`;
            - "hf-hub:OWNER/REPOSITORY", "keras:APPLICATION", or the URL of a `.pth` file whose name ends
              with the first digits of its SHA-256;
            - the path of a `.safetensors`, `.pth`, `.pth.tar`, `.pt`, `.ckpt` or `.bin` file with PyTorch's
              names and layout, as in timm's checkpoints, or of the index of several (no pickle is executed).
              The tensors may lie under a key such as "state_dict" beside other things; where there is an
              average of the weights, it is taken, and logged. Prefixes of wrappers, such as "module.", are
              removed;
            - a mapping of such names to arrays;
            - the path of a `.weights.h5` or `.keras` file that Keras 3 saved from the same network.

        include_top: False where the top will be cut off: its weights are then not missed.
        fresh_classifier: False where a classifier must not keep its fresh weights: it is then a ValueError
            if the weights have none for it, or one of another number of classes.
        allow_nonfinite: whether weights may be NaN or infinity.
        any_preprocess: whether the network may have another normalisation than the file's.

    Raises:
        OSError: there is no such file, or it cannot be downloaded.
        ValueError: the file cannot be read, its weights are not those of this network (the message names
            what is missing, unexpected or misshapen), they were trained with other settings (the message
            names the layer, the setting and both values), or they are NaN or infinity. The model is then
            left as it was.
    """
    assign = partial(
        _assign,
        model,
        include_top=include_top,
        fresh_classifier=fresh_classifier,
        allow_nonfinite=allow_nonfinite,
    )
    if isinstance(source, Mapping):
        return assign(source, "the mapping")
    row = source if isinstance(source, Weights) else None
    source = row.source if row else _fetch.named(source)
    if source.startswith(_fetch.KERAS):
        columns = (row and row.columns) or {}
        keras_model = _fetch.application(source, columns.get("width_multiplier", 1.0))
        return assign(tensors_of(model, keras_model), source)
    path = _fetch.local(source)
    tensors = by_reference_names(model, _fetch.read(path))
    settings = _settings_in(path, [layer.name for layer in model.layers])
    assign(
        tensors,
        repr(source),
        settings=settings,
        free={_settings.PREPROCESS} if any_preprocess else set(),
    )
    if settings is None and row is None:
        LOG.warning(
            "%s: %r holds no settings: whether `padding`, `norm_epsilon`, the normalisation and the like are "
            "those of its training was not checked.",
            model.name,
            source,
        )


def preprocess(source) -> Preprocess | None:
    """The normalisation that weights were trained with, where their file holds it, before there is a network.

    Args:
        source: a mapping or a file's path, as `load` takes them.

    Returns:
        That of a `.keras` file, or of a `.safetensors` file of `save`; None for others.

    Raises:
        OSError: there is no such file.
        ValueError: the file cannot be read.
    """
    if isinstance(source, Mapping):
        return None
    path = _fetch.local(_fetch.named(source))
    try:
        return _settings.preprocess_of(_settings_in(path, [_settings.PREPROCESS]) or {})
    except Exception as error:  # whatever damaged settings raise
        raise _fetch.unreadable(repr(path), error) from None


def _settings_in(path: str, names: list[str]) -> dict[str, dict] | None:
    try:
        return _settings.of_file(path, names)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise _fetch.unreadable(repr(path), error) from None


def num_classes(source, classifier: str) -> int | None:
    """The number of classes of weights, before there is a network.

    Args:
        source: a mapping or a file's path, as `load` takes them.
        classifier: the name of the network's classifier, `kvision.info(NAME).classifier`.

    Returns:
        The number; None where the weights have no such classifier.

    Raises:
        OSError: there is no such file.
        ValueError: the file cannot be read.
    """
    if isinstance(source, Mapping):
        tensors, origin = source, "the mapping"
    else:
        tensors, origin = _fetch.read(_fetch.local(_fetch.named(source))), repr(_fetch.named(source))
    places = {f"{classifier}.weight": 0, f"{classifier}/0": -1}  # PyTorch's, Keras'
    for name, tensor in _taken(tensors, places, origin)[0].items():
        if name in places and (kernel := _floats(tensor, name, origin)).size and kernel.ndim:
            return kernel.shape[places[name]]
    return None


def from_keras(model: keras.Model, keras_model: keras.Model) -> None:
    """Copies the weights of a network of keras.applications into the same network of kvision.

    Normalisation is not copied: kvision's networks take pixels, and have their own.

    Args:
        model: a network of kvision, with its top.
        keras_model: of keras.applications, with its top. Another number of classes or channels is adapted to.

    Raises:
        ValueError: the two are not of these kinds; or `keras_model` is another network (ResNet is: its 1 x 1
            convolutions stride and have biases), and the message says what differs first.
    """
    check_model(model)
    check_model(keras_model, "keras_model")
    ours = ["trunk" in {layer.name for layer in network.layers} for network in (model, keras_model)]
    if ours != [True, False]:
        raise UserError(
            "`model` must be a network of kvision and `keras_model` one of keras.applications; got "
            f"{model.name} and {keras_model.name}."
        )
    _assign(model, tensors_of(model, keras_model), f"keras.applications' {keras_model.name}")


def save(model: keras.Model, path) -> None:
    """Writes a network's weights to a `.safetensors` file that timm loads: its names, layout and buffers.

    The file's metadata hold the settings of the layers, which `load` compares.

    Raises:
        ValueError: `path` does not end with .safetensors.
        OSError: it cannot be written; nothing is left half-written.
    """
    path = Path(_fetch.named(path)).expanduser()
    if path.suffix != ".safetensors":
        raise UserError(f"`path` must end with .safetensors; got {str(path)!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path`: there is no folder {str(path.parent)!r}.")
    tensors = {
        name: np.ascontiguousarray(value, np.float32 if value.dtype.name == "bfloat16" else None)
        for name, value in state_dict(model).items()
    }
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            tensors[f"{layer.name}.num_batches_tracked"] = np.zeros((), np.int64)
    settings = json.dumps(_settings.of_model(model))
    content = safetensors.numpy.save(tensors, {"format": "pt", _settings.METADATA: settings})
    with replacing(path) as tmp_path:
        tmp_path.write_bytes(content)


def state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """A network's weights as `load` takes them: PyTorch's names and layout."""
    return {
        name: np.transpose(keras.ops.convert_to_numpy(variable), axes)
        for name, (variable, axes, _) in parameters(model).items()
    }


def _assign(
    model: keras.Model,
    tensors: Mapping,
    origin: str,
    include_top: bool = True,
    fresh_classifier: bool = True,
    allow_nonfinite: bool = False,
    settings: Mapping[str, dict] | None = None,
    free: Collection[str] = (),
) -> None:
    wanted = parameters(model)
    given, notes = _taken(tensors, wanted, origin)
    leftover = [name for name in given if name not in wanted and not name.startswith(AUXILIARY_HEADS)]
    heads = classifiers(model) if include_top else behind_trunk(model)
    fresh, adapted, missing, misshapen, nonfinite = set(), list(notes), [], [], []
    values = {}
    for name, (variable, axes, layer) in wanted.items():
        expected = tuple(variable.shape[i] for i in axes)
        tensor = given[name] = _floats(given[name], name, origin) if name in given else None
        fitted = None if tensor is None else _fitted(name, tensor, expected, layer, model, adapted)
        if fitted is not None:
            with np.errstate(over="ignore"):
                values[name] = fitted.astype(variable.dtype, copy=False)
            if not np.isfinite(values[name]).all():
                nonfinite.append(name)
            elif name.endswith("running_var") and values[name].min() < 0:
                raise UserError(f"`weights`: {origin} holds a negative variance in {name}.")
        elif layer.name in heads and (
            tensor is None or not include_top or _of_classes(tensor.shape, expected, layer)
        ):
            fresh.add(layer.name)
        elif tensor is not None:
            misshapen.append(f"{name} is {tensor.shape} instead of {expected}")
        else:
            missing.append(name)
    if include_top:
        begun = {layer.name for name, (_, _, layer) in wanted.items() if given[name] is not None} & fresh
        missing += [
            name for name, (_, _, layer) in wanted.items() if layer.name in begun and given[name] is None
        ]
    faults = [
        f"{len(names)} {fault} ({', '.join(map(_fetch.shown, names[:3]))}{', ...' if len(names) > 3 else ''})"
        for fault, names in (("missing", missing), ("unexpected", leftover), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise UserError(
            f"`weights`: {origin} does not fit {model.name} ({len(wanted)} parameters): {'; '.join(faults)}."
        )
    if settings:
        outputs = {producer(tensor)[0].name for tensor in keras.tree.flatten(model.outputs)}
        auxiliary = {name for name in settings if name.startswith(AUXILIARY_HEADS)}
        try:
            other = _settings.difference(
                _settings.of_model(model), settings, {*heads, *outputs, *auxiliary, *free}
            )
        except Exception as error:  # whatever damaged settings raise
            raise _fetch.unreadable(origin, error) from None
        if other:
            raise UserError(
                f"`weights`: {origin} was saved with other settings than {model.name} has: {other}."
            )
    if fresh and not fresh_classifier:
        raise UserError(
            f"`weights`: {origin} has no weights for the classifier {_listed(fresh)} of this size: "
            "give `num_classes` for a fresh one, or `include_top=False`."
        )
    if nonfinite and not allow_nonfinite:
        names = nonfinite[0] + (f" and {len(nonfinite) - 1} more" if nonfinite[1:] else "")
        raise UserError(
            f"`weights`: {origin} holds NaN or infinity in {names}; `allow_nonfinite=True` takes them."
        )
    for name, tensor in values.items():
        variable, axes, layer = wanted[name]
        if layer.name not in fresh:
            variable.assign(np.transpose(tensor, np.argsort(axes)))
    if fresh and include_top:
        adapted.append(f"the classifier {_listed(fresh)} keeps its fresh weights")
    if adapted:
        LOG.warning("%s: of %s, %s.", model.name, origin, ", ".join(dict.fromkeys(adapted)))


def _of_classes(shape: tuple, expected: tuple, layer) -> bool:
    """Whether a classifier's weights differ from those that are expected in their number of classes alone."""
    axes = 2 if isinstance(layer, keras.layers.Conv2DTranspose) else 1  # these map classes to classes
    return len(shape) == len(expected) and shape[axes:] == expected[axes:] and 0 not in shape


def _listed(names) -> str:
    return " and ".join(map(repr, sorted(names)))


def _taken(tensors: Mapping, wanted, origin) -> tuple[dict, list[str]]:
    """`fitting`, without the buffers of PyTorch."""
    try:
        given, notes = fitting(tensors, wanted)
    except UserError as error:
        raise _fetch.unreadable(origin, error) from None
    return {name: tensor for name, tensor in given.items() if not name.endswith(IGNORED)}, notes


def _floats(tensor, name: str, origin: str) -> np.ndarray:
    """A tensor as an array, which is read from the file here; a UserError where it holds no floats."""
    try:
        if not hasattr(tensor, "__array__"):
            raise UserError(f"it is a {getattr(tensor, 'kind', type(tensor).__name__)}, not a dense tensor")
        array = np.asarray(tensor)
        if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
            raise UserError(f"it holds {array.dtype}, not floats")
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise _fetch.unreadable(origin, f"{name}: {error}") from None
    return array


def _fitted(name, tensor, expected: tuple, layer, model, adapted: list):
    """The tensor in the shape that is expected, None where that cannot be; `adapted` gets what was done.

    PyTorch flattens a map channel by channel, so a dense layer's kernel behind it is a convolution's over
    the map. Layers with tables of positions resample those of other sizes.
    """
    if tensor.shape == expected:
        return tensor
    if (tensor.ndim != len(expected) and (tensor.ndim, len(expected)) != (2, 4)) or 0 in tensor.shape:
        return None
    if tensor.ndim == 2 and len(expected) == 4 and tensor.shape == (expected[0], math.prod(expected[1:])):
        return np.reshape(tensor, expected)
    if (
        layer is first_convolution(model)
        and tensor.ndim == len(expected) == 4
        and (tensor.shape[0], *tensor.shape[2:]) == (expected[0], *expected[2:])
    ):
        channels, given = expected[1], tensor.shape[1]
        how = f"repeated for {channels}" if given < channels else f"cut to the first {channels}"
        how = "summed" if channels == 1 else how  # so that a grey image gives what its copies gave
        adapted.append(f"the first kernels of {given} channels were {how}")
        if channels == 1:
            return tensor.sum(1, keepdims=True)
        return tensor[:, np.arange(channels) % given] * np.float32(given / channels)
    if hasattr(layer, "resample") and (resampled := layer.resample(name, tensor)) is not None:
        height, width = getattr(layer, "window", None) or layer.grid
        adapted.append(f"the positions were resampled for {height} x {width} tokens")
        return resampled
    return None
