"""Captions found token by token."""

import keras
import numpy as np
import pytest
from tiny_sequences import inputs_for, tiny_captioner, tiny_video

from kvision import sequence
from kvision.errors import UserError
from kvision.vocabulary import END, PADDING, START

DECODERS = {
    "rnn": {"decoder": "rnn"},
    "lstm": {"decoder": "lstm", "depth": 2, "embedding": 6},
    "gru": {"decoder": "gru", "inject": "every_step", "depth": 2, "embedding": 6},
    "transformer": {"decoder": "transformer", "depth": 2},
}


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    """With a decoder whose weights are as large as in a trained network, so that captions differ."""
    keras.utils.set_random_seed(0)
    model = tiny_captioner(**DECODERS[request.param])
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1 and not variable.path.startswith("backbone"):
            variable.assign(random.normal(0, 1, variable.shape))
    return model


def images_for(count):
    return np.random.default_rng(1).uniform(0, 255, (count, 64, 64, 3)).astype("float32")


def log_probabilities(model, images, tokens):
    """The sum over a caption, with all tokens given at once."""
    before = np.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    words = keras.ops.log_softmax(model({"image": images, "tokens": before}))
    chosen = np.take_along_axis(np.asarray(words), tokens[..., None], axis=2)[..., 0]
    return (chosen * (tokens != PADDING)).sum(1)


def test_steps_are_what_the_network_says_of_all_tokens_at_once(model):
    inputs = inputs_for(model)
    layers = len(model.layers)
    expected = np.asarray(model(inputs))
    encoder, stepper = sequence.encoder(model), sequence.stepper(model)
    state = encoder(inputs["image"])
    shapes = {name: value.shape for name, value in state.items()}
    for place in range(6):
        state = stepper({"token": keras.ops.convert_to_tensor(inputs["tokens"][:, place]), **state})
        np.testing.assert_allclose(state.pop("logits"), expected[:, place], atol=1e-5)
        assert {name: value.shape for name, value in state.items()} == shapes
    assert len(model.layers) == layers
    assert model.get_layer("word_embed").output is not None  # a second call would leave it none


def test_halves_come_back_from_files(model, tmp_path):
    images = images_for(2)
    state = sequence.encoder(model)(images)
    inputs = {"token": keras.ops.full((2,), START, "int32"), **state}
    stepper = sequence.stepper(model)
    stepper.save(tmp_path / "stepper.keras")
    again = keras.saving.load_model(tmp_path / "stepper.keras")
    np.testing.assert_array_equal(again(inputs)["logits"], stepper(inputs)["logits"])
    encoder = sequence.encoder(model)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras")(images)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value)


def test_searches(model):
    images = images_for(4)
    greedy = sequence.greedy(model, images)
    assert (greedy.dtype, greedy.shape) == (np.dtype("int32"), (4, 6))
    np.testing.assert_array_equal(sequence.beam(model, images, 1), greedy)
    found = {width: sequence.beam(model, images, width) for width in (2, 5)}
    for tokens in (greedy, *found.values()):
        ended = np.cumsum(tokens == END, axis=1) - (tokens == END) > 0
        np.testing.assert_array_equal(tokens == PADDING, ended)
        assert not (tokens == START).any()
    scores = log_probabilities(model, images, greedy)
    for tokens in found.values():
        assert (log_probabilities(model, images, tokens) >= scores - 1e-5).all()
    assert not np.array_equal(found[5], greedy)  # or all of this would be said of one caption
    np.testing.assert_array_equal(sequence.greedy(model, images, 3), greedy[:, :3])


def test_a_wide_beam_finds_the_best_of_all_captions(model):
    image = images_for(1)
    pairs = [[a, b] for a in range(2, 12) for b in range(2, 12) if a != END] + [[END, PADDING]]
    tokens = np.pad(np.array(pairs, "int32"), ((0, 0), (0, 4)))
    scores = log_probabilities(model, np.repeat(image, len(pairs), axis=0), tokens)
    found = sequence.beam(model, image, 100, 2)
    assert log_probabilities(model, image, np.pad(found, ((0, 0), (0, 4)))) == pytest.approx(
        scores.max(), abs=1e-5
    )
    lengths = (tokens != PADDING).sum(1)
    best = tokens[np.argmax(scores / lengths), :2]
    np.testing.assert_array_equal(sequence.beam(model, image, 100, 2, normalize=True)[0], best)


def test_attention_of_a_transformer():
    model = tiny_captioner(**DECODERS["transformer"])
    images = images_for(3)
    tokens = sequence.greedy(model, images)
    shares = sequence.attention(model, images, tokens)
    assert shares.shape == (3, 6, 2, 2)
    np.testing.assert_allclose(shares.sum((2, 3)), 1, atol=1e-5)
    assert shares.std() > 0
    np.testing.assert_allclose(sequence.attention(model, images, tokens[:, :2]), shares[:, :2], atol=1e-6)
    with pytest.raises(UserError, match="`tokens` must be .* at most 6 tokens; got"):
        sequence.attention(model, images, np.ones((3, 7), "int32"))
    with pytest.raises(UserError, match="`tokens` must be an array of numbers; got 'words'"):
        sequence.attention(model, images, "words")
    with pytest.raises(UserError, match="must have a Transformer as decoder; that of captioner is recurrent"):
        sequence.attention(tiny_captioner(), images, tokens)


def test_refusals():
    model, images = tiny_captioner(decoder="transformer"), images_for(1)
    for call in (sequence.encoder, sequence.stepper, lambda m: sequence.greedy(m, images)):
        with pytest.raises(
            UserError, match="`model` must be a captioner of kvision; frame_classifier is none"
        ):
            call(tiny_video("mean"))
        with pytest.raises(UserError, match="`model` must be a `keras.Model`; got 'captioner'"):
            call("captioner")
    with pytest.raises(UserError, match="`length` must be a positive integer of at most 6; got 7"):
        sequence.greedy(model, images, 7)
    with pytest.raises(UserError, match="`width` must be a positive integer; got 0"):
        sequence.beam(model, images, 0)
    with pytest.raises(UserError, match="`images` must have the shape .*; got"):
        sequence.greedy(model, images[:, 1:])
    with pytest.raises(UserError, match="`images` must be an array of numbers; got"):
        sequence.beam(model, "photo.jpg")
