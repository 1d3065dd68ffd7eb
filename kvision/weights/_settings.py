"""Settings of layers: what a network's answers depend on besides its weights, such as an epsilon."""

import json
from collections.abc import Collection, Iterator, Mapping

import keras
import numpy as np
import safetensors

from kvision.errors import UserError
from kvision.spec import Preprocess
from kvision.weights._archive import open_archive, read_entry

CONFIG = "config.json"  # of a .keras file
METADATA = "kvision"  # the key in the metadata of a .safetensors file
PREPROCESS, TRUNK = "preprocess", "trunk"  # layers
CONSTANTS = ("scale", "offset")  # of `preprocess`
STRUCTURE = ("Activation", "ZeroPadding2D", "MaxPooling2D", "AveragePooling2D")  # layers without weights
FREE = {  # settings of training, of the image's size, and those that all networks share
    "name", "trainable", "dtype", "seed", "rate", "dropout_rate", "noise_shape", "momentum", "synchronized",
    "value", "grid", "target_shape", "cropping", "window_size", "axis", "data_format", "batch_shape",
    "box_regression",
}  # fmt: skip
FREE_ENDINGS = ("_initializer", "_regularizer", "_constraint")
ATROUS = ("strides", "dilation_rate", "padding", "ZeroPadding2D")  # free where dilation replaces strides
KEYWORDS = {  # of builders, by settings
    "epsilon": "norm_epsilon", "padding": "padding", "pool_size": "padding", "num_heads": "num_heads",
    "activation": "activation", "class": "subsampling",
}  # fmt: skip


def of_model(model: keras.Model) -> dict[str, dict]:
    """The settings of a network's layers, by the layers' names."""
    layers = [keras.saving.serialize_keras_object(layer) for layer in model.layers]
    return next(_networks({"layers": json.loads(json.dumps(layers))}))


def of_file(path: str, names: Collection[str]) -> dict[str, dict] | None:
    """The settings in a `.keras` file, or in a `.safetensors` file of `kvision.weights.save`.

    Args:
        path: the file's.
        names: of layers; of models in models, the one that has the most of them is taken.

    Returns:
        As `of_model`; None where the file has none.

    Raises:
        Exception: the file is damaged.
    """
    if path.lower().endswith(".keras"):
        with open_archive(path) as archive:
            config = json.loads(read_entry(archive, CONFIG))["config"]
        return max(_networks(config), key=lambda layers: len(layers.keys() & set(names)), default=None)
    if path.lower().endswith(".safetensors"):
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(METADATA)
        layers = text and json.loads(text)
        if layers and not (isinstance(layers, dict) and all(isinstance(s, dict) for s in layers.values())):
            raise UserError(f"{METADATA!r} in its metadata was not written by `kvision.weights.save`")
        return layers or None
    return None


def preprocess_of(settings: Mapping[str, dict]) -> Preprocess | None:
    """The normalisation in settings; None where they have none.

    Raises:
        Exception: the settings are damaged.
    """
    constants = settings.get(PREPROCESS, {})
    if any(constants.get(key) is None for key in CONSTANTS):
        return None
    scale, offset = np.broadcast_arrays(*(np.ravel(constants[key]).astype(float) for key in CONSTANTS))
    mean, std = ([float(f"{value:.9g}") for value in values] for values in (-offset / scale, 1 / scale))
    return Preprocess(tuple(mean), tuple(std))


def difference(ours: Mapping[str, dict], given: Mapping[str, dict], free: Collection[str]) -> str | None:
    """The first setting of a file that is not the network's; None where there is none.

    Args:
        ours: settings of the network.
        given: settings in the file.
        free: names of layers that may differ.

    Raises:
        Exception: the settings in the file are damaged.
    """
    own, theirs = preprocess_of(ours), preprocess_of(given)
    if own and theirs and PREPROCESS not in free:
        theirs = theirs.for_channels(len(own.mean))
        if not np.allclose((*own.mean, *own.std), (*theirs.mean, *theirs.std), rtol=1e-5, atol=1e-5):
            keyword = f"preprocess=kvision.Preprocess(mean={theirs.mean}, std={theirs.std})"
            return f"its layer {PREPROCESS!r} is {theirs} instead of {own}: build with `{keyword}`"
    passed = ATROUS if _is_atrous(ours) or _is_atrous(given) else ()
    for name in [name for name in ours if name in given and name not in {PREPROCESS, *free}]:
        for key in [key for key in ours[name] if key in given[name] and key not in passed]:
            if ours[name][key] != given[name][key]:
                hint = f": build with the `{KEYWORDS[key]}` that it had" if key in KEYWORDS else ""
                return (
                    f"its layer {name!r} has {key}={given[name][key]!r} instead of {ours[name][key]!r}{hint}"
                )
    for has, one, other in (("it has", given, ours), ("it lacks", ours, given)):
        for name in _in_trunk(one) if TRUNK in other else ():
            if one[name].get("class") in {*STRUCTURE} - {*passed} and name not in {*other, *free}:
                return f"{has} the layer {name!r} ({one[name]['class']})"
    return None


def _is_atrous(settings: Mapping[str, dict]) -> bool:
    """Whether a network has dilation in place of strides, with weights trained without (Chen et al. 2017)."""
    dilations = (np.max(layer.get("dilation_rate", 1)) for layer in settings.values())
    return max(dilations, default=1) > 1


def _in_trunk(settings: Mapping[str, dict]) -> list[str]:
    """The layers before that at which the top begins."""
    names = list(settings)
    return names[: names.index(TRUNK)] if TRUNK in names else []


def _networks(config: dict) -> Iterator[dict[str, dict]]:
    """The settings in a network, by layers, and those in the networks in it."""
    settings = {}
    for layer in config["layers"]:
        kind, inside = layer["class_name"], layer["config"]
        if "layers" in inside:
            yield from _networks(inside)
        settings[inside["name"]] = {
            key: value for key, value in inside.items() if key not in FREE and not key.endswith(FREE_ENDINGS)
        } | ({"class": kind} if kind in STRUCTURE else {})
    yield settings
