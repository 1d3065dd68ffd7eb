"""The training step under strategies, and checkpoints."""

import json
import resource
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import examples, make_loop, mostly_slow, run_python, tiny

import kvision
from kvision.opening import open_model
from kvision_tools import checkpoints
from kvision_tools.choices import LEARNING_RATES
from kvision_tools.optimizers import make_optimizer

OF_FOUR = {"num_classes": 4, "classifier_activation": None}
SMALL = OF_FOUR | {"width_multiplier": 0.1, "input_shape": (32, 32, 3)}


def network():
    """Batch norms, kernels and biases, and no more than a step has to treat."""
    x = inputs = keras.Input((32, 32, 3))
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, 2, use_bias=False)(x)
        x = keras.layers.ReLU()(kvision.layers.BatchNorm(momentum=0.9)(x))
    outputs = keras.layers.Dense(4, name="fc")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def random_network():
    """A network with dropout and stochastic depth."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(keras.layers.GlobalAveragePooling2D()(inputs))
    x = keras.layers.Dense(8, "tanh", name="first")(x)
    path = kvision.layers.DropPath(0.5, name="path")(keras.layers.Dense(8, name="second")(x))
    x = keras.layers.Dropout(0.5, name="dropout")(keras.layers.Add()([x, path]))
    return keras.Model(inputs, keras.layers.Dense(4, name="fc")(x), name="network")


def dataset(batches=4, batch=8, size=32):
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batches * batch, size, size, 3)).astype("float32")
    labels = random.integers(0, 4, batches * batch)
    return examples(images, labels).repeat().batch(batch)


def loss_of(loop, data, steps=1):
    """The loss over some steps of training."""
    sums, _ = loop.train(data, tf.constant(steps))
    return loop.task.metrics({name: value.numpy() for name, value in sums.items()})["loss"]


def optimizer_for(model, name="sgd", **keywords):
    keywords = {"learning_rate": 0.1, "weight_decay": 0.0, "steps": 100, "warmup_steps": 0} | keywords
    return make_optimizer(name, model=model, **keywords)


def test_a_step_is_that_of_model_fit():
    """Against Keras' own loop, on the same batches from the same weights."""
    keras.utils.set_random_seed(0)
    ours, theirs = network(), network()
    theirs.set_weights(ours.get_weights())
    theirs.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100), momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    pairs = dataset().map(lambda batch: (batch["image"], batch["label"]))
    history = theirs.fit(pairs, steps_per_epoch=3, epochs=1, verbose=0, shuffle=False)
    loop = make_loop(ours, optimizer_for(ours))
    assert loss_of(loop, iter(dataset()), 3) == pytest.approx(history.history["loss"][0], rel=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_side_classifiers_count_in_training_and_are_left_out_after(tmp_path):
    keras.utils.set_random_seed(0)
    columns = SMALL | {"input_shape": (64, 64, 3)}
    model = kvision.models.googlenet(auxiliary=True, dropout_rate=0.0, **columns)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    images = np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3)).astype("float32")
    labels = np.arange(8) % 4
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        assert list(outputs) == ["predictions", "aux1", "aux2"]
        losses = {
            key: tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            )
            for key, logits in outputs.items()
        }
        loss = losses["predictions"] + 0.3 * (losses["aux1"] + losses["aux2"])
    expected = tape.gradient(loss, model.trainable_variables)
    before = model.get_weights()
    loop = make_loop(model, keras.optimizers.SGD(1.0))
    data = examples(images, labels).batch(8)
    sums, _ = loop.train(iter(data), tf.constant(1))
    metrics = loop.task.metrics({name: value.numpy() for name, value in sums.items()})
    assert list(metrics) == ["loss", "aux1_loss", "aux2_loss", "accuracy"]
    assert metrics["loss"] == pytest.approx(float(losses["predictions"]), rel=1e-4)
    assert metrics["aux1_loss"] == pytest.approx(0.3 * float(losses["aux1"]), rel=1e-4)
    after = dict(zip((v.path for v in model.weights), model.get_weights(), strict=True))
    start = dict(zip((v.path for v in model.weights), before, strict=True))
    for variable, gradient in zip(model.trainable_variables, expected, strict=True):
        moved = start[variable.path] - after[variable.path]
        np.testing.assert_allclose(moved, gradient, rtol=1e-3, atol=1e-4)
    model.save(tmp_path / "model.keras")
    opened = open_model(str(tmp_path / "model.keras"))
    assert opened.model.output_shape == (None, 4)
    probabilities = keras.ops.softmax(model(images)["predictions"])
    np.testing.assert_allclose(opened.model(images), probabilities, atol=1e-6)


def test_a_distilled_networks_heads_are_trained_as_equals_and_answer_with_their_mean(tmp_path):
    """Equation 3 of DeiT, with the labels in place of the teacher's answers."""
    keras.utils.set_random_seed(0)
    model = tiny(
        "deit_tiny_distilled", auxiliary=True, drop_path_rate=0.0, classifier_activation=None, num_classes=4
    )
    images = np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3)).astype("float32")
    labels = np.arange(8) % 4
    before = [v.numpy() for v in model.trainable_variables]
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        heads = [outputs["class"], outputs["distillation"]]
        loss = (cross_entropy(labels, heads[0]) + cross_entropy(labels, heads[1])) / 2
    expected = tape.gradient(loss, model.trainable_variables)
    data = examples(images, labels).batch(8)
    loop = make_loop(model, keras.optimizers.SGD(1.0))
    assert loss_of(loop, iter(data)) == pytest.approx(float(loss), rel=1e-4)
    for old, variable, gradient in zip(before, model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(old - variable.numpy(), gradient, rtol=1e-3, atol=1e-5)
    outputs = model(images)
    mean = (outputs["class"] + outputs["distillation"]) / 2
    assert loop.evaluate(data)["loss"] == pytest.approx(float(cross_entropy(labels, mean)), rel=1e-4)
    model.save(tmp_path / "model.keras")
    opened = open_model(str(tmp_path / "model.keras"))
    np.testing.assert_allclose(opened.model(images), keras.ops.softmax(mean), atol=1e-6)


def test_xla_takes_the_same_steps():
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = network()
        before = model.get_weights()
        optimizer = optimizer_for(model, learning_rate=0.01)
        loop = make_loop(model, optimizer, jit_compile=jit_compile, label_smoothing=0.1)
        assert hasattr(loop._gradients, "experimental_get_compiler_ir") == jit_compile
        loss = loss_of(loop, iter(dataset()), 2)
        moves = [new - old for new, old in zip(model.get_weights(), before, strict=True)]
        results.append((loss, moves))
    (loss, moves), (xla_loss, xla_moves) = results
    assert xla_loss == pytest.approx(loss, rel=1e-5)
    for move, xla_move in zip(moves, xla_moves, strict=True):
        assert np.linalg.norm(xla_move - move) < 1e-3 * np.linalg.norm(move)


def test_evaluation_counts_every_image():
    model = network()
    loop = make_loop(model, optimizer_for(model), label_smoothing=0.1)
    data = dataset(batch=8).take(3).unbatch().batch(10)  # the last batch has 4
    batches = list(data.as_numpy_iterator())
    images, labels = (np.concatenate([batch[name] for batch in batches]) for name in ("image", "label"))
    logits = model(images, training=False)
    result = loop.evaluate(data)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert result["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert result["accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == labels))


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_weight_decay_spares_norms_and_biases(name):
    model = network()
    optimizer = optimizer_for(model, name, weight_decay=0.5)
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply([keras.ops.zeros_like(v) for v in before], model.trainable_variables)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        factor = 1 - 0.1 * 0.5 if old.ndim > 1 else 1
        np.testing.assert_allclose(variable.numpy(), factor * old, rtol=1e-5, atol=1e-7)


def test_the_rate_warms_up_and_falls_to_zero():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = optimizer_for(model, learning_rate=0.2, steps=30, warmup_steps=10)
    rates = []
    for step in (0, 5, 10, 20, 30):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.1, 0], atol=1e-6)


@pytest.mark.parametrize("name", mostly_slow(["sgd", "adamw"], "adamw"))
def test_a_restored_run_goes_on_bit_for_bit(name, tmp_path):
    """With dropout and stochastic depth, whose seeds `tf.train.Checkpoint` would leave out."""

    def start():
        keras.utils.set_random_seed(0)
        model = random_network()
        optimizer = optimizer_for(model, name, learning_rate=0.01)
        return make_loop(model, optimizer, ema_decay=0.9)

    loop = start()
    batches = iter(dataset())
    loop.train(batches, tf.constant(3))
    checkpoints.save(tmp_path, 3, loop, {"epoch": 1})
    loop.train(batches, tf.constant(3))

    again = start()
    assert checkpoints.restore(tmp_path, again) == {"epoch": 1}
    again.train(iter(dataset().skip(3)), tf.constant(3))
    for a, b in zip(loop.variables.values(), again.variables.values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(loop.model.variables, again.model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def loop_of(name, **keywords):
    model = getattr(kvision.models, name)(**SMALL)
    return make_loop(model, optimizer_for(model), **keywords)


def test_checkpoints_are_kept_whole_and_of_one_network(tmp_path, capsys):
    loop = loop_of("mobilenet_v1")
    assert checkpoints.restore(tmp_path, loop) is None
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, loop, {"step": step})
    newest = tmp_path / "step_00000003.safetensors"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "step_00000002.safetensors", newest]
    (tmp_path / "step_00000004.tmp").write_bytes(b"a write that was cut off")
    assert checkpoints.restore(tmp_path, loop) == {"step": 3}
    with pytest.raises(ValueError, match="another network"):
        checkpoints.restore(tmp_path, loop_of("mobilenet_v2"))
    with pytest.raises(ValueError, match="another network or optimizer: 'loop/ema/0' differs"):
        checkpoints.restore(tmp_path, loop_of("mobilenet_v1", ema_decay=0.9))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert checkpoints.restore(tmp_path, loop) == {"step": 2}
    assert "step_00000003.safetensors' is damaged" in capsys.readouterr().err
    (tmp_path / "step_00000002.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="No checkpoint .* can be used"):
        checkpoints.restore(tmp_path, loop)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    loop = loop_of("mobilenet_v1")
    checkpoints.save(tmp_path, 1, loop, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*step_00000002.safetensors"):
            checkpoints.save(tmp_path, 2, loop, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.safetensors"]
    assert checkpoints.restore(tmp_path, loop) == {"step": 1}


def test_the_average_of_weights_warms_up():
    model = network()
    loop = make_loop(model, optimizer_for(model), ema_decay=0.5)
    first = kernel = loop.model.get_layer("fc").kernel.numpy()
    average, batches = first, iter(dataset())
    for step in (1, 2, 3, 40):
        loop.optimizer.iterations.assign(step - 1)
        loop.train(batches, tf.constant(1))
        kernel = loop.model.get_layer("fc").kernel.numpy()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * kernel
    loop.swap_average()
    np.testing.assert_allclose(loop.model.get_layer("fc").kernel, average, rtol=1e-5, atol=1e-7)
    loop.swap_average()
    np.testing.assert_array_equal(loop.model.get_layer("fc").kernel, kernel)


def test_gradients_are_clipped_by_their_common_norm():
    model = network()
    before = [v.numpy() for v in model.trainable_variables]
    loop = make_loop(model, keras.optimizers.SGD(1.0), clip_norm=1e-3)
    loop.train(iter(dataset()), tf.constant(1))
    moves = [v.numpy() - old for v, old in zip(model.trainable_variables, before, strict=True)]
    assert np.sqrt(sum((move**2).sum() for move in moves)) == pytest.approx(1e-3, rel=1e-3)


def test_a_step_that_overflows_is_left_out():
    """And the loss scale is halved, as often as it takes."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    loop = make_loop(model, optimizer_for(model), scale_loss=True)
    batches = iter(dataset())
    loop.loss_scale.assign(2.0**40)
    before = [v.numpy() for v in model.trainable_variables]
    loop.train(batches, tf.constant(1))
    assert float(loop.loss_scale) == 2.0**39
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable)
    assert int(loop.optimizer.iterations) == 0
    loop.loss_scale.assign(4.0)
    loop._good_steps.assign(1998.0)
    assert np.isfinite(loss_of(loop, batches, 2))
    assert (float(loop.loss_scale), int(loop.optimizer.iterations)) == (8.0, 2)


def test_gradients_that_no_scale_makes_finite_are_not_passed_over(monkeypatch):
    """The run goes back, as in float32, instead of training nothing."""
    model = network()
    loop = make_loop(model, optimizer_for(model), scale_loss=True)
    gradients = loop._gradients

    def spoiled(batch):
        found, sums = gradients(batch)
        return [gradient * np.nan for gradient in found], sums

    monkeypatch.setattr(loop, "_gradients", spoiled)
    loop.loss_scale.assign(1.0)
    loop.train(iter(dataset()), tf.constant(1))
    assert np.isnan(model.trainable_variables[0].numpy()).all()


STRATEGIES = """
import json, pathlib, sys
import keras, tensorflow as tf
sys.path += {paths}
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import kvision
from kvision_tools.loop import with_blanks
from kvision_tools.strategy import Cluster, make_strategy
from helpers import make_loop, tiny
from test_loop import OPTIONS, dataset, loss_of, optimizer_for

results, keywords = [], OPTIONS[{option!r}]
for name in ("one", "mirrored"):
    strategy = make_strategy(name, Cluster())
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16" if "scale_loss" in keywords else "float32")
    with strategy.scope():
        model = tiny("resnet18", num_classes=4, classifier_activation=None)
        optimizer = optimizer_for(model, learning_rate=0.003)
    loop = make_loop(model, optimizer, strategy, sync_batch_norm=True, **keywords)
    size = 8 // keywords.get("accumulate", 1) // strategy.num_replicas_in_sync
    parts = lambda data: strategy.distribute_datasets_from_function(lambda _: data.unbatch().batch(size))
    train = iter(parts(dataset(size=64)))
    losses = [loss_of(loop, train, steps) for steps in (1, 2, 3)]
    uneven = with_blanks(dataset(size=64).unbatch().take(17).batch(size), 17 // (2 * size) * 2 + 2)
    evaluate = lambda: loop.evaluate(strategy.distribute_datasets_from_function(lambda _: uneven))["loss"]
    losses.append(evaluate())
    if loop.ema_decay:
        loop.swap_average()
        losses.append(evaluate())
    results.append(losses)
pathlib.Path({output!r}).write_text(json.dumps(results))
"""
OPTIONS = {
    "plain": {},
    "all at once": {"accumulate": 2, "clip_norm": 0.1, "ema_decay": 0.9},
    "float16": {"scale_loss": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_two_devices_give_the_losses_of_one(option, tmp_path):
    here, output = Path(__file__).parent, tmp_path / "losses.json"
    paths = [str(here), str(here.parent)]
    run_python(STRATEGIES.format(paths=paths, option=option, output=str(output)))
    one, two = json.loads(output.read_text())
    assert len(one) == (5 if option == "all at once" else 4)
    np.testing.assert_allclose(two, one, rtol=1e-2 if option == "float16" else 1e-5)
