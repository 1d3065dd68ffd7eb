"""Networks as others build them, made fit to be evaluated and exported."""

import json

import keras
import numpy as np

from kvision.errors import UserError
from kvision.keras_internals import all_layers, producer
from kvision.names import listed
from kvision.spec import Preprocess

PREPROCESS = "preprocess"  # the name of kvision's own first layer
PASSING = keras.layers.Dropout, keras.layers.Flatten, keras.layers.Identity, keras.layers.Reshape
AVERAGING = keras.layers.Average, keras.layers.GlobalAveragePooling2D, keras.layers.UpSampling2D

MOST_UNROLLED = 128  # steps
SIDE = 64  # of noise for a model that takes any size, in pixels
TAKES = {  # networks, by the rank of their input
    3: "series",
    4: "images with 1 or 3 channels",
    5: "clips with 1 or 3 channels",
}
FORMS = {2: "(batch, classes)", 4: "(batch, height, width, classes)"}  # of outputs, by their rank


def check(model: keras.Model, rank: int = 2, input_rank: int = 4) -> None:
    """Raises a UserError unless the model has one input and one output of some ranks."""
    inputs, outputs = getattr(model, "inputs", ()), getattr(model, "outputs", ())
    if _named_outputs(model) or len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != rank:
        raise UserError(f"{model.name} must have one input and one output of shape {FORMS[rank]}.")
    shape, takes = inputs[0].shape, TAKES[input_rank]
    if len(shape) != input_rank or (input_rank > 3 and shape[-1] not in (1, 3)):
        raise UserError(f"{model.name} must take {takes}; its input is {shape}.")


def rank_of(model: keras.Model) -> int | None:
    """The rank of the output that is judged; None where there is none."""
    output = _judged(model)
    return None if output is None else len(output.shape)


def activation_of(model: keras.Model) -> str | None:
    """Name of what computes the output that is judged, such as "softmax"; None where there is none."""
    output = _judged(model)
    return None if output is None else _name_of(_last_operation(output))


def image_of(model: keras.Model):
    """The symbolic images that a model is given, alone or beside others; else its first input."""
    return given(model).get("image", model.inputs[0])


def image_shape(model: keras.Model) -> tuple:
    """The shape of a model's images, `(batch, height, width, channels)`."""
    return image_of(model).shape


def proposals_of(model: keras.Model) -> int:
    """The number of proposals that a model takes beside each image; 0 where it takes none."""
    named = given(model)
    return named["proposals"].shape[1] if "proposals" in named else 0


def given(model: keras.Model) -> dict:
    """The symbolic inputs by name of a model that takes proposals or tokens beside images; {} for others."""
    several = len(getattr(model, "inputs", None) or ()) > 1
    named = model.input if several and isinstance(model.input, dict) else {}
    return named if {*named} in ({"image", "proposals"}, {"image", "tokens"}) else {}


def check_finite(model: keras.Model) -> None:
    """Raises a UserError where the weights have NaN or infinity."""
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable)
        if variable.dtype.endswith(("float16", "float32", "float64")) and not np.isfinite(value).all():
            raise UserError(f"{model.name} has NaN or infinity in its weights: {variable.path!r:.100}.")


def are_finite(answers) -> bool:
    """Whether the outputs of a network, one array or several, are without NaN and infinity."""
    return all(np.isfinite(part).all() for part in keras.tree.flatten(answers))


def functional(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """The model as a functional one of images of one shape, `(height, width, channels)`, or of clips."""
    pixels = keras.Input(shape, name="image")
    named = given(model)
    inputs = named | {"image": pixels} if named else pixels
    try:
        outputs = model(inputs)
    except Exception as error:  # whatever layers that others wrote raise
        raise UserError(f"{model.name} takes no images of shape {shape}: {_reason(error)}") from None
    return keras.Model(inputs, outputs, name=model.name)


def portable(model: keras.Model) -> keras.Model:
    """The model in float32 and without synchronised batch norms, which any backend opens; itself if it is."""
    layers = list(all_layers(model))
    halves = {layer.dtype_policy.name for layer in layers if layer.compute_dtype in ("float16", "bfloat16")}
    if not halves and not any(getattr(layer, "synchronized", False) for layer in layers):
        return model
    changes = {f'"{policy}"': '"float32"' for policy in halves}
    return _copied(model, changes | {'"synchronized": true': '"synchronized": false'})


def unrolled(model: keras.Model) -> keras.Model:
    """The model whose recurrent layers are a graph of all of their steps, without loops; itself if it is.

    Raises:
        UserError: there are more than 128 steps.
    """
    rolled = [
        layer for layer in all_layers(model) if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    if not rolled:
        return model
    steps = max(layer.input.shape[1] for layer in rolled)
    if steps > MOST_UNROLLED:
        raise UserError(
            f"Integers need recurrent layers without loops, of at most {MOST_UNROLLED} steps; {model.name} has "
            f"{steps}: float32, float16 and dynamic have loops."
        )
    return _copied(model, {'"unroll": false': '"unroll": true'})


def _copied(model, changes: dict[str, str]) -> keras.Model:
    """The model with other settings of its layers, by pieces of its configuration, and with its weights."""
    config = json.dumps(keras.saving.serialize_keras_object(model))
    for old, new in changes.items():
        config = config.replace(old, new)
    try:
        copy = keras.saving.deserialize_keras_object(json.loads(config))
    except Exception as error:  # whatever layers that others wrote raise
        raise UserError(
            f"{model.name} cannot be copied with {listed([*changes.values()])}: {_reason(error)}"
        ) from None
    copy.set_weights(model.get_weights())
    return copy


def preprocess_of(model: keras.Model) -> Preprocess | None:
    """The normalisation in a model's layer `preprocess`; None where it has no such layer."""
    for layer in all_layers(model):
        if layer.name == PREPROCESS and isinstance(layer, keras.layers.Rescaling):
            scale, offset = np.broadcast_arrays(layer.scale, layer.offset)
            values = (0 - offset / scale, 1 / scale)  # rounded, as a division leaves 57.37499999999999
            found = Preprocess(*(tuple(float(f"{v:.12g}") for v in np.ravel(value)) for value in values))
            return found.for_channels(max(len(found.mean), image_shape(model)[-1]))
    return None


def normalized(model: keras.Model, preprocess: Preprocess) -> keras.Model:
    """The model of pixels in [0, 255], which a first layer normalises for it.

    Raises:
        UserError: it has such a layer already, or another number of channels.
    """
    if present := preprocess_of(model):
        raise UserError(
            f"{model.name} has a layer {PREPROCESS!r} already, which makes {present} of pixels in [0, 255]."
        )
    pixels = keras.Input(image_shape(model)[1:], dtype="float32", name="image")
    channels = pixels.shape[-1]
    if len(preprocess.mean) not in (1, channels):
        raise UserError(
            f"{model.name} takes images of {channels} channels; got a mean and std of {len(preprocess.mean)}."
        )
    preprocess = preprocess.for_channels(channels)
    x = keras.layers.Rescaling(*preprocess.constants, dtype="float32", name=PREPROCESS)(pixels)
    named = given(model)
    inputs, inside = (named | {"image": pixels}, named | {"image": x}) if named else (pixels, x)
    return keras.Model(inputs, model(inside), name=model.name)


def of_size(model: keras.Model, size: int | None) -> keras.Model:
    """The model for square images; one that takes any size is given this one."""
    if size is None:
        return model
    if len(image_shape(model)) < 4:
        raise UserError(f"{model.name} takes no images; got `image_size` {size}.")
    *frames, height, width, channels = image_shape(model)[1:]
    if (height, width) == (size, size):
        return model
    if None not in (height, width):
        raise UserError(f"{model.name} takes images of {(height, width)} pixels; got `image_size` {size}.")
    return functional(model, (*frames, size, size, channels))


def _judged(model):
    """The symbolic output that is judged; None where there is none."""
    outputs = _named_outputs(model)
    outputs = [outputs["predictions"]] if "predictions" in outputs else getattr(model, "outputs", None)
    return outputs[0] if outputs else None


def _named_outputs(model) -> dict:
    outputs = getattr(model, "output", None)
    return outputs if isinstance(outputs, dict) else {}


def with_probabilities(
    model: keras.Model, rank: int = 2, activation: str = "softmax", input_rank: int = 4
) -> keras.Model:
    """The model without auxiliary heads, with a softmax over its last axis, or sigmoids, at its end."""
    if "predictions" in _named_outputs(model):
        model = keras.Model(model.input, model.output["predictions"], name=model.name)
    check(model, rank, input_rank)
    last = _last_operation(model.outputs[0])
    end = _name_of(last)
    if end == activation:
        return model
    if end != "linear" and hasattr(keras.activations, end):
        sigmoids = ", or a sigmoid for each," * (rank == 2)
        raise UserError(
            f"{model.name} ends in {last.name!r} with the activation {end!r}; logits or a softmax over its "
            f"classes{sigmoids} were expected."
        )
    if activation == "softmax" and not hasattr(keras.activations, end) and _sums_to_one(model):
        return model
    layer = keras.layers.Activation(activation, dtype="float32", name="probabilities")
    return keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)


def _sums_to_one(model) -> bool:
    """Whether the answers to noise are probabilities, as those of averaged or resized softmaxes are."""
    shape = [side or SIDE for side in model.input_shape[1:]]
    noise = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype("float32")
    answers = model.predict(noise, verbose=0)
    return answers.min() >= 0 and np.allclose(answers.sum(-1), 1, atol=1e-3)


def _name_of(operation) -> str:
    """The name of an operation's activation, or else of its kind, in small letters."""
    function = getattr(operation, "activation", type(operation))
    return getattr(function, "__name__", type(function).__name__).lower()


def _reason(error) -> str:
    return f"{(str(error).strip() or repr(error)).splitlines()[0]:.200}"


def _last_operation(tensor):
    """The operation that computes a tensor, also inside of nested models and before reshapes and casts.

    An average of probabilities is one too.
    """
    operation, _, index = producer(tensor)
    if inside := getattr(operation, "outputs", None):
        return _last_operation(inside[index])
    linear = getattr(operation, "activation", None) is keras.activations.linear
    if isinstance(operation, PASSING) or (isinstance(operation, keras.layers.Activation) and linear):
        return _last_operation(operation.input)
    if isinstance(operation, AVERAGING):
        averaged = [_last_operation(tensor) for tensor in keras.tree.flatten(operation.input)]
        if {_name_of(one) for one in averaged} in ({"softmax"}, {"sigmoid"}):
            return averaged[0]
    return operation
