"""Captions from a captioner: its two halves, greedy and beam search, and where a Transformer looks."""

import weakref

import keras
import numpy as np
from keras import ops

from kvision._nested import check_model
from kvision.errors import UserError
from kvision.keras_internals import inputs_of
from kvision.layers import DecoderBlock, Shared
from kvision.models import _values
from kvision.vocabulary import END, PADDING, START

MOST_WORDS, MOST_BEAMS = 10**4, 10**3
LEAST = -1e30  # logit of what is no word
_HALVES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # encoder and stepper of models in use


def encoder(model: keras.Model) -> keras.Model:
    """The half of a captioner that sees the image.

    Args:
        model: a `kvision.sequence.captioner`. The weights are shared with it.

    Returns:
        A model from pixels `(batch, height, width, channels)` to the decoder's state in front of the first
        token: a dict of tensors whose first axis is the batch. A recurrent decoder's are "h_0" and, of an
        LSTM, "c_0", `(batch, units)`, those of the next layer "h_1", ..., and with `inject="every_step"`
        "image". A Transformer's are "position", int32 `(batch,)`, and, each
        `(batch, heads, length or places of the map, d)`, "keys_0" and "values_0" of the tokens so far, and
        "image_keys_0" and "image_values_0" of the map.

    Raises:
        ValueError: the model is no captioner.
    """
    layers = _layers_of(model)
    image = model.get_layer("image_embed").output
    state = {}
    if not isinstance(layers[0], DecoderBlock):
        names = [names_of(layer, i) for i, layer in enumerate(layers)]
        for layer, own in zip(layers, names, strict=True):
            state |= {name: _zeros(image[:, :1], layer.units, axis=1) for name in own}
        if any(layer.name == "every_step" for layer in model.layers):
            state["image"] = image
        else:
            _, state = recurrent_step(layers, image, state)
    else:
        length = model.input["tokens"].shape[1]
        memory = model.get_layer("memory").output
        for i, layer in enumerate(layers):
            keys, values = shared(layer, "remember")(memory)
            state |= {f"image_keys_{i}": keys, f"image_values_{i}": values}
            state |= {f"{key}_{i}": _zeros(keys[:, :, :1], length, axis=2) for key in ("keys", "values")}
        state["position"] = ops.cast(ops.zeros_like(memory[:, 0, 0]), "int32")
    return keras.Model(model.input["image"], state, name=f"{model.name}_encoder")


def stepper(model: keras.Model) -> keras.Model:
    """The half of a captioner that finds the next token.

    Args:
        model: a `kvision.sequence.captioner`. The weights are shared with it.

    Returns:
        A model from a dict of "token", int32 `(batch,)`, and the state, see `encoder`, to a dict of "logits",
        `(batch, num_classes)`, and the next state, under the same names and of the same shapes. From
        `kvision.vocabulary.START` on, its logits are those that the captioner has for all tokens at once.

    Raises:
        ValueError: the model is no captioner.
    """
    return _stepper(model, encoder(model))


def _stepper(model, encoder) -> keras.Model:
    layers = _layers_of(model)
    state = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in encoder.output.items()
    }
    token = keras.Input((), dtype="int32", name="token")
    x = shared(model.get_layer("word_embed"))(token)
    if isinstance(layers[0], DecoderBlock):
        x = shared(model.get_layer("word_embed.scale"))(x)
        x = shared(model.get_layer("word_embed.positions"), "step")(x, state["position"])
        after = {"position": state["position"] + 1}
        for i, layer in enumerate(layers):
            own = [f"{key}_{i}" for key in ("keys", "values", "image_keys", "image_values")]
            x, *cache = shared(layer, "step")(x, [state["position"], *(state[name] for name in own)])
            after |= dict(zip(own[:2], cache, strict=True))
    else:
        if "image" in state:
            x = ops.concatenate([x, state["image"]], axis=-1)
        x, after = recurrent_step(layers, x, state)
    images = [name for name in state if name.startswith("image")]
    kept = {name: keras.layers.Identity(name=f"{name}.kept")(state[name]) for name in images}
    logits = shared(model.get_layer("classifier"))(x)
    return keras.Model(
        {"token": token, **state}, {"logits": logits, **after, **kept}, name=f"{model.name}_stepper"
    )


@keras.saving.register_keras_serializable("kvision")
class Greedy(keras.layers.Layer):
    """The likeliest word at each place, one after the other, in a loop.

    Input: pixels; output: int32 `(batch, length)`, see `greedy`.

    Args:
        of_image, of_token: the halves of a captioner, see `encoder` and `stepper`.
        length: most tokens.
    """

    def __init__(self, of_image, of_token, length, **keywords):
        super().__init__(**keywords)
        self.of_image, self.of_token, self.length = of_image, of_token, length

    def build(self, input_shape):
        pass

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], self.length), "int32")

    def call(self, images):
        state = self.of_image(images, training=False)
        no_words = np.zeros(self.of_token.output["logits"].shape[-1], "float32")
        no_words[[PADDING, START]] = LEAST
        places = np.arange(self.length, dtype="int32")
        first = ops.zeros_like(next(iter(state.values())), dtype="int32")
        first = ops.reshape(first, (ops.shape(first)[0], -1))[:, 0]  # (batch,)

        def goes_on(place, last, tokens, *_):
            return ops.logical_and(place < self.length, ops.any(_goes_on(last)))

        def step(place, last, tokens, *values):
            after = self.of_token({"token": last, **dict(zip(state, values, strict=True))}, training=False)
            logits = ops.cast(after["logits"], "float32") + no_words
            word = ops.top_k(logits, 1)[1][:, 0]  # TFLite lacks an operator of Keras' argmax
            last = ops.where(_goes_on(last), word, PADDING)
            here = ops.cast(ops.equal(places, place), "int32")
            return place + 1, last, tokens + here * last[:, None], *(after[name] for name in state)

        begin = ops.convert_to_tensor(0, "int32"), first + START, ops.repeat(first[:, None], self.length, 1)
        return ops.while_loop(goes_on, step, (*begin, *state.values()))[2]


def _goes_on(last):
    """Whether a caption goes on behind a token."""
    return ops.logical_and(ops.not_equal(last, END), ops.not_equal(last, PADDING))


def one_shot(model: keras.Model) -> keras.Model:
    """A captioner that finds its greedy captions by itself.

    Args:
        model: a `kvision.sequence.captioner`. The weights are shared with it.

    Returns:
        A model from pixels `(batch, height, width, channels)` to int32 tokens `(batch, length)`, see `greedy`.

    Raises:
        ValueError: the model is no captioner.
    """
    of_image = encoder(model)
    decode = Greedy(of_image, _stepper(model, of_image), model.input["tokens"].shape[1], name="tokens")
    image = keras.Input(model.input["image"].shape[1:], dtype=model.input["image"].dtype, name="image")
    return keras.Model(image, {"tokens": decode(image)}, name=f"{model.name}_one_shot")


def _layers_of(model) -> list[keras.layers.Layer]:
    """The layers of a captioner's decoder."""
    check_model(model)
    inputs = model.input if len(getattr(model, "inputs", None) or ()) > 1 else None
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN | DecoderBlock)]
    if not isinstance(inputs, dict) or {*inputs} != {"image", "tokens"} or not layers:
        raise UserError(f"`model` must be a captioner of kvision; {model.name} is none.")
    return layers


def shared(layer, method="__call__") -> Shared:
    return Shared(layer, method, name=f"{layer.name}.{method.strip('_')}")


def names_of(layer, place: int) -> list[str]:
    """The names of a recurrent layer's states."""
    return [f"{name}_{place}" for name in ("h", "c")[: len(keras.tree.flatten(layer.cell.state_size))]]


def recurrent_step(layers, x, state: dict) -> tuple:
    """The output of a stack of recurrent layers for one step, and their states."""
    after = {}
    for i, layer in enumerate(layers):
        names = names_of(layer, i)
        cell = Shared(layer.cell, name=f"{layer.name}.cell")
        x, states = cell(x, [state[name] for name in names])
        after |= dict(zip(names, keras.tree.flatten(states), strict=True))
    return x, after


def _zeros(x, count: int, axis: int):
    """Zeros as `x`, whose axis of one is so long; the batch's size is known when it is computed."""
    return ops.zeros_like(ops.repeat(x, count, axis=axis))


def greedy(model: keras.Model, images, length: int | None = None) -> np.ndarray:
    """The caption whose every token is the likeliest one behind those before it.

    Args:
        model: a `kvision.sequence.captioner`.
        images: pixels in [0, 255], `(batch, height, width, channels)`.
        length: most tokens, the end among them; by default the network's.

    Returns:
        int32 `(batch, length)`: tokens without the start, `kvision.vocabulary.END` where a caption ends
        within the length, and `PADDING` behind it. Neither `START` nor `PADDING` is found elsewhere.

    Raises:
        ValueError: the model is no captioner, the images have another shape, or `length` is no positive
            integer or longer than a Transformer's.
    """
    state, step, length = _begin(model, images, length)
    return _greedy(state, step, length)[0]


def _greedy(state, step, length) -> tuple[np.ndarray, np.ndarray]:
    """The tokens, and the sums of their log-probabilities."""
    count = len(next(iter(state.values())))
    tokens, scores = np.full((count, length), PADDING, "int32"), np.zeros(count)
    last, ended = np.full(count, START, "int32"), np.zeros(count, bool)
    for place in range(length):
        words, state = step(last, state)
        last = np.where(ended, PADDING, words.argmax(-1)).astype("int32")
        scores += np.where(ended, 0, words.max(-1))
        tokens[:, place] = last
        ended |= last == END
        if ended.all():
            break
    return tokens, scores


def beam(
    model: keras.Model, images, width: int = 3, length: int | None = None, *, normalize: bool = False
) -> np.ndarray:
    """The likeliest caption that a beam search finds, which is never less likely than the greedy one.

    Args:
        model: a `kvision.sequence.captioner`.
        images: pixels in [0, 255], `(batch, height, width, channels)`.
        width: captions that are kept at each step; Show and Tell's is 20.
        length: most tokens, the end among them; by default the network's.
        normalize: whether captions are compared at the end by the mean log-probability of their tokens, and
            not the sum, which prefers short ones.

    Returns:
        As `greedy`.

    Raises:
        ValueError: as `greedy`, or `width` is no positive integer.
    """
    width = _values.integer("width", width, MOST_BEAMS)
    normalize = _values.boolean("normalize", normalize)
    state, step, length = _begin(model, images, length)
    greedy_tokens, greedy_scores = _greedy(state, step, length)
    tokens, scores = _beams(state, step, length, width)
    tokens = np.concatenate([tokens, greedy_tokens[:, None]], axis=1)
    scores = np.concatenate([scores, greedy_scores[:, None]], axis=1)
    if normalize:
        scores = scores / np.maximum(1, (tokens != PADDING).sum(-1))
    return tokens[np.arange(len(tokens)), scores.argmax(1)]


def _beams(state, step, length, width) -> tuple[np.ndarray, np.ndarray]:
    """The last beams, int32 `(batch, width, length)`, and the sums of their log-probabilities."""
    count = len(next(iter(state.values())))
    state = {name: ops.repeat(value, width, axis=0) for name, value in state.items()}
    tokens = np.full((count, width, length), PADDING, "int32")
    scores = np.full((count, width), -np.inf)
    scores[:, 0] = 0  # all begin alike
    last = np.full(count * width, START, "int32")
    for place in range(length):
        words, state = step(last, state)
        words = words.reshape(count, width, -1)
        ended = (tokens == END).any(-1)
        words[ended] = -np.inf
        words[ended, PADDING] = 0
        totals = (scores[..., None] + words).reshape(count, -1)
        best = np.argpartition(-totals, width - 1, axis=1)[:, :width]
        scores = np.take_along_axis(totals, best, axis=1)
        parents, found = np.divmod(best, words.shape[-1])
        tokens = np.take_along_axis(tokens, parents[..., None], axis=1)
        tokens[..., place] = found
        if ((found == END) | (found == PADDING)).all():
            break
        rows = (width * np.arange(count)[:, None] + parents).ravel()
        state = {name: ops.take(value, rows, axis=0) for name, value in state.items()}
        last = tokens[..., place].ravel()
    return tokens, scores


def _begin(model, images, length):
    """The state in front of the first token, what makes a step, and the length.

    A step takes tokens, int32 `(batch,)`, and the state, and gives log-probabilities, float64
    `(batch, num_classes)`, minus infinity of what is no word, and the next state.
    """
    layers = _layers_of(model)
    own = model.input["tokens"].shape[1]
    most = own if isinstance(layers[0], DecoderBlock) else MOST_WORDS
    length = _values.integer("length", own if length is None else length, most)
    images = _images(model, images)
    if model not in _HALVES:
        of_image = encoder(model)
        _HALVES[model] = of_image, _stepper(model, of_image)
    of_image, of_token = _HALVES[model]

    def step(tokens, state):
        state = of_token({"token": ops.convert_to_tensor(tokens), **state}, training=False)
        logits = ops.convert_to_numpy(ops.cast(state.pop("logits"), "float32")).astype("float64")
        largest = logits.max(-1, keepdims=True)
        words = logits - largest - np.log(np.exp(logits - largest).sum(-1, keepdims=True))
        words[:, [PADDING, START]] = -np.inf
        return words, state

    return of_image(images, training=False), step, length


def _images(model, images) -> np.ndarray:
    images = _values.numbers_of("images", images)
    shape = model.input["image"].shape
    pairs = zip(shape, images.shape, strict=False)
    if images.ndim != 4 or any(ours not in (None, theirs) for ours, theirs in pairs):
        raise UserError(f"`images` must have the shape {shape}; got {images.shape}.")
    return images


def attention(model: keras.Model, images, tokens) -> np.ndarray:
    """Where a Transformer's last block looks when it finds each token of a caption.

    Args:
        model: a `kvision.sequence.captioner` with `decoder="transformer"`.
        images: pixels in [0, 255], `(batch, height, width, channels)`.
        tokens: of their captions, without the start, as `greedy` gives them: int `(batch, length)`, of at
            most the network's length.

    Returns:
        float32 `(batch, length, height, width)` over the backbone's last map: the shares of attention, the
        mean over the heads; they sum to 1.

    Raises:
        ValueError: the model has no such decoder, or the images or tokens have another shape.
    """
    block = _layers_of(model)[-1]
    if not isinstance(block, DecoderBlock):
        raise UserError(f"`model` must have a Transformer as decoder; that of {model.name} is recurrent.")
    images, tokens = _images(model, images), _values.numbers_of("tokens", tokens, "int32")
    longest = model.input["tokens"].shape[1]
    if tokens.ndim != 2 or len(tokens) != len(images) or not 0 < tokens.shape[1] <= longest:
        raise UserError(
            f"`tokens` must be (batch, length) for {len(images)} images, of at most {longest} tokens; got "
            f"{tokens.shape}."
        )
    before = np.full((len(tokens), longest), PADDING, "int32")
    before[:, 0] = START
    before[:, 1 : tokens.shape[1]] = tokens[:, :-1]
    shares = shared(block, "shares")(*inputs_of(block, 0))
    shares = keras.Model(model.input, ops.mean(shares, axis=1))({"image": images, "tokens": before})
    height, width = model.get_layer("image_embed").output.shape[1:3]
    shares = ops.convert_to_numpy(ops.cast(shares, "float32"))[:, : tokens.shape[1]]
    return shares.reshape(*shares.shape[:2], height, width)
