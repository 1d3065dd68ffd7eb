"""The networks of sequences: their shapes, parameters, files and refusals."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import built_without_memory, tiny
from tiny_sequences import FRAMES, RANDOM, backbone, inputs_for, tiny_captioner, tiny_video

import kvision
from kvision import sequence
from kvision.errors import UserError
from kvision_tools.commands.info import description

TASKS = {
    "forecasting": {"markov", "autoregressive", "latent_autoregressive"},
    "sequence": {"recurrent_classifier", "transformer_encoder"},
    "video": {"frame_classifier"},
    "captioning": {"captioner"},
}
FUNCTIONS = {"forecast", "encoder", "stepper", "streamer", "greedy", "one_shot", "beam", "attention"}
ENCODER = {"width": 8, "hidden": 16, "num_heads": 2, "depth": 2, "dropout_rate": 0.0}
MODELS = {  # small forms, and the shapes of their inputs
    "markov": lambda: sequence.markov(input_shape=(3, 2), order=2),
    "autoregressive": lambda: sequence.autoregressive(input_shape=(5, 2), units=8),
    "latent": lambda: sequence.latent_autoregressive(input_shape=(5, 2), steps=5, units=8),
    "rnn": lambda: sequence.recurrent_classifier(input_shape=(5, 2), cell="rnn", units=4, depth=2),
    "lstm": lambda: sequence.recurrent_classifier(input_shape=(5, 2), units=4),
    "gru": lambda: sequence.recurrent_classifier(input_shape=(5, 2), cell="gru", units=4, reset_after=False),
    "post": lambda: sequence.transformer_encoder(input_shape=(5, 2), **ENCODER),
    "pre": lambda: sequence.transformer_encoder(
        input_shape=(5, 2), norm="pre", positions="learned", **ENCODER
    ),
    "video lstm": lambda: tiny_video("lstm"),
    "video transformer": lambda: tiny_video("transformer"),
    "video mean": lambda: tiny_video("mean"),
    "caption lstm": lambda: tiny_captioner(),
    "caption gru": lambda: tiny_captioner(decoder="gru", inject="every_step", depth=2, embedding=6),
    "caption transformer": lambda: tiny_captioner(decoder="transformer", depth=2),
}


def test_a_name_is_a_builder_and_a_network_of_its_task():
    functions = {name for name, value in vars(sequence).items() if inspect.isfunction(value)}
    assert functions == FUNCTIONS.union(*TASKS.values())
    for task, names in TASKS.items():
        assert {*kvision.list_models(task=task)} == names
        for name in names:
            builder, info = getattr(sequence, name), kvision.info(name)
            row = type(info.variant)
            assert (builder.__module__, builder.__name__) == ("kvision.sequence", name)
            assert getattr(sequence, row.__name__) is row
            assert f"see `kvision.sequence.{row.__name__}`" in builder.__doc__
            assert f"{name}: {info.variant.params:,} trainable" in description(name)
    with pytest.raises(UserError, match="Unknown `task` 'captions'. Did you mean 'captioning'"):
        kvision.list_models(task="captions")


@pytest.mark.parametrize("name", sorted(set().union(*TASKS.values())))
def test_parameters_of_the_default(name):
    model = built_without_memory(name)
    assert model.name == name
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == kvision.info(name).variant.params


@pytest.mark.parametrize(
    ("columns", "params"),
    [
        ({"cell": "rnn"}, (5 + 7) * 7 + 7),
        ({"cell": "lstm"}, 4 * ((5 + 7) * 7 + 7)),
        ({"cell": "gru"}, 3 * ((5 + 7) * 7 + 2 * 7)),
        ({"cell": "gru", "reset_after": False}, 3 * ((5 + 7) * 7 + 7)),
        ({"cell": "rnn", "depth": 2}, (5 + 7) * 7 + 7 + (7 + 7) * 7 + 7),
    ],
)
def test_parameters_of_cells(columns, params):
    model = sequence.recurrent_classifier(input_shape=(4, 5), units=7, num_classes=3, **columns)
    assert model.count_params() == params + 7 * 3 + 3


@pytest.mark.parametrize("name", MODELS)
def test_networks_come_back_from_files_and_every_weight_has_a_gradient(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    inputs = inputs_for(model)
    answers = np.asarray(model(inputs))
    assert answers.dtype == "float32"
    assert answers.std() > 0
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(inputs), answers)
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = keras.ops.sum(outputs * RANDOM.normal(size=outputs.shape).astype("float32"))
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        gradient = np.asarray(tf.convert_to_tensor(gradient))
        assert np.isfinite(gradient).all(), variable.path
        assert gradient.any(), variable.path


@pytest.mark.parametrize("name", ["latent", "pre", "video lstm", "caption transformer", "caption gru"])
def test_mixed_precision_has_the_same_layers_and_float32_answers(name):
    plain = [layer.name for layer in MODELS[name]().layers if layer.weights]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = MODELS[name]()
    finally:
        keras.config.set_dtype_policy("float32")
    assert [layer.name for layer in model.layers if layer.weights] == plain
    assert model.output.dtype == "float32"
    assert np.isfinite(np.asarray(model(inputs_for(model)))).all()


def test_forecasts_are_in_the_units_of_the_series():
    """x_t = 2 x_(t-1) is a Markov model; with a normalisation it forecasts the same of the same weights."""
    model = sequence.markov(input_shape=(3, 1), preprocess=kvision.Preprocess((10.0,), (4.0,)))
    model.get_layer("classifier").set_weights([np.full((1, 1), 2.0), np.full(1, 2 * 10 / 4 - 10 / 4)])
    window = np.array([[[7.0], [9.0], [1.0]], [[5.0], [5.0], [3.0]]])
    found = sequence.forecast(model, window, 4)
    np.testing.assert_allclose(found[..., 0], [[2, 4, 8, 16], [6, 12, 24, 48]], rtol=1e-5)
    for steps in (0, 2.5, "ten"):
        with pytest.raises(UserError, match="`steps` must be a positive integer; got"):
            sequence.forecast(model, window, steps)
    with pytest.raises(UserError, match=r"`window` must be \(batch, steps, 1\) with at least 3 steps; got"):
        sequence.forecast(model, window[:, 1:], 2)
    for text in ("abc", [["a"]], [[1], [1, 2]]):
        with pytest.raises(UserError, match="`window` must be an array of numbers; got"):
            sequence.forecast(model, text, 2)
    with pytest.raises(UserError, match="`model` must forecast the next value"):
        sequence.forecast(backbone(32), window, 2)


def test_forecasters_read_the_last_steps_alone():
    window = RANDOM.normal(size=(1, 6, 2)).astype("float32")
    changed = window.copy()
    changed[:, :3] += 1
    for model, reads_more in (
        (sequence.markov(order=3, input_shape=(6, 2)), False),
        (sequence.autoregressive(window=4, input_shape=(6, 2)), True),
        (sequence.latent_autoregressive(steps=6, input_shape=(6, 2)), True),
    ):
        assert np.array_equal(model(window), model(changed)) != reads_more


def test_a_transformer_without_positions_is_blind_to_order():
    x = RANDOM.normal(size=(3, 5, 2)).astype("float32")
    for positions, blind in ((None, True), ("sinusoidal", False), ("learned", False)):
        model = sequence.transformer_encoder(input_shape=(5, 2), positions=positions, **ENCODER)
        if positions == "learned":
            model.get_layer("pos_embed").embedding.assign(RANDOM.normal(size=(1, 5, 8)))
        assert np.allclose(model(x), model(x[:, ::-1].copy()), atol=1e-6) == blind


def test_a_video_is_judged_by_the_mean_of_its_frames_probabilities():
    keras.utils.set_random_seed(0)
    network = backbone(32)
    model = tiny_video("gru", backbone=network)
    videos = inputs_for(model)
    frames = keras.Model(network.input, network.get_layer("trunk").output)(videos.reshape(8, 32, 32, 3))
    x = model.get_layer("rnn.0")(np.mean(frames, (1, 2)).reshape(2, 4, -1))
    expected = keras.ops.mean(keras.ops.softmax(model.get_layer("classifier")(x)), axis=1)
    np.testing.assert_allclose(model(videos), expected, atol=1e-6)
    logits = tiny_video("gru", classifier_activation=None)
    logits.set_weights(model.get_weights())
    np.testing.assert_allclose(keras.ops.exp(logits(videos)), expected, atol=1e-6)
    assert keras.ops.all(keras.ops.isfinite(logits(videos)))


@pytest.mark.parametrize("head", ["mean", "rnn", "transformer"])
def test_the_mean_of_frames_alone_is_blind_to_their_order(head):
    keras.utils.set_random_seed(0)
    model = tiny_video(head, classifier_activation=None)
    videos = inputs_for(model)
    same = np.allclose(model(videos), model(videos[:, ::-1].copy()), atol=1e-6)
    assert same == (head == "mean")


def test_networks_stand_on_any_classifier_with_its_weights(tmp_path):
    network = tiny("deit_tiny")
    model = tiny_captioner(backbone=network)
    assert model.get_layer("pool").input.shape == (None, 4, 4, 16)
    pixels = RANDOM.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    trunk = keras.Model(network.input, network.get_layer("trunk").output)(pixels)
    ours = keras.Model(model.input["image"], model.get_layer("trunk").output)(pixels)
    np.testing.assert_array_equal(ours, trunk)
    names = {layer.name for layer in model.layers if layer.weights}
    decoder = {"image_embed", "word_embed", "decoder.0", "classifier"}
    assert all(name.startswith("backbone.") for name in names - decoder)
    kvision.weights.save(model, tmp_path / "captioner.safetensors")
    again = tiny_captioner(backbone=network, weights=tmp_path / "captioner.safetensors")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert kvision.depth_groups(model)[-1] == [layer.name for layer in model.layers if layer.name in decoder]
    grey = tiny_video("mean", backbone=tiny("lenet5", input_shape=(32, 32, 1)), input_shape=(32, 32, 1))
    assert grey.input_shape == (None, 4, 32, 32, 1)
    named = sequence.frame_classifier(backbone="mobilenet_v1", **FRAMES)
    assert named.output_shape == (None, 3)


YOLOX = {"input_shape": (64, 64, 3), "num_classes": 3, "width_multiplier": 0.125, "depth_multiplier": 0.1}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: sequence.latent_autoregressive(cell="lsmt"),
            "`cell` must be 'rnn', 'lstm' or 'gru'; got 'lsmt'",
        ),
        (lambda: sequence.recurrent_classifier(cell=3), "`cell` must be 'rnn', 'lstm' or 'gru'; got 3"),
        (
            lambda: sequence.recurrent_classifier(units="many"),
            "`units` must be a positive integer; got 'many'",
        ),
        (lambda: sequence.recurrent_classifier(reset_after="no"), "`reset_after` must be True or False"),
        (
            lambda: sequence.recurrent_classifier(input_shape=(0, 3)),
            r"`input_shape` must be \(steps, features\)",
        ),
        (
            lambda: sequence.recurrent_classifier(input_shape="28"),
            r"`input_shape` must be \(steps, features\)",
        ),
        (lambda: sequence.recurrent_classifier(num_classes=0), "`num_classes` must be a positive integer"),
        (lambda: sequence.markov(order=0), "`order` must be a positive integer; got 0"),
        (
            lambda: sequence.autoregressive(input_shape=(2, 1)),
            "`input_shape` has 2 steps; autoregressive reads 4: give a longer window, or `window=2`",
        ),
        (lambda: sequence.markov(preprocess=3), "`preprocess` must be a `kvision.Preprocess`; got 3"),
        (
            lambda: sequence.markov(
                input_shape=(1, 3), preprocess=kvision.Preprocess((0.0,) * 2, (1.0,) * 2)
            ),
            "one for each of the 3 features; got 2",
        ),
        (lambda: sequence.transformer_encoder(num_heads=7), r"`num_heads` \(7\) must divide the 512"),
        (lambda: sequence.transformer_encoder(norm="after"), "`norm` must be 'post' or 'pre'; got 'after'"),
        (
            lambda: sequence.transformer_encoder(positions="sine"),
            "`positions` must be 'sinusoidal', 'learned' or None; got 'sine'",
        ),
        (lambda: sequence.frame_classifier(head="gur"), "`head` must be .* or 'mean'; got 'gur'"),
        (lambda: sequence.frame_classifier(frames=0), "`frames` must be a positive integer; got 0"),
        (lambda: sequence.frame_classifier(backbone="yolox_s"), "`backbone` must be a classifier's name"),
        (
            lambda: tiny_video("lstm", backbone=kvision.create_model("yolox_s", **YOLOX)),
            "`backbone` must be a classifier's name, or a network .* classifies images; yolox_s is another",
        ),
        (lambda: sequence.captioner(decoder="transfomer"), "`decoder` must be .* or 'transformer'; got"),
        (
            lambda: tiny_captioner(decoder="transformer", inject="init"),
            "`inject` is of recurrent decoders: .* got 'init'",
        ),
        (
            lambda: tiny_captioner(inject="first"),
            "`inject` must be 'init', 'every_step' or None; got 'first'",
        ),
        (lambda: tiny_captioner(decoder="transformer", embedding=4), "`embedding` is of recurrent decoders"),
        (lambda: tiny_captioner(decoder="transformer", num_heads=3), r"`num_heads` \(3\) must divide the 8"),
        (lambda: tiny_captioner(length="six"), "`length` must be a positive integer; got 'six'"),
        (lambda: tiny_captioner(backbone=tiny_captioner()), "captioner is another"),
        (lambda: tiny_captioner(backbone="resnet5"), "got 'resnet5'. Did you mean 'resnet50'"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_unknown_keywords_name_the_known_ones():
    with pytest.raises(TypeError, match="Unknown keyword 'unit'. Did you mean 'units'"):
        sequence.latent_autoregressive(unit=3)
    with pytest.raises(TypeError, match="Unknown keyword 'pooling'.*Valid names: .*decoder"):
        sequence.captioner(pooling="avg")
