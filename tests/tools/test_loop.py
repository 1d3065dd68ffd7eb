"""The training step under strategies, and checkpoints."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision
from kvision.runs import open_model
from kvision_tools import checkpoints
from kvision_tools.loop import Loop, means
from kvision_tools.optimizers import NAMES, make_optimizer

SMALL = {"width_multiplier": 0.1, "input_shape": (32, 32, 3), "num_classes": 4, "classifier_activation": None}
SHALLOW = SMALL | {"depth_multiplier": 0.3}


def dataset(batches=4, batch=8):
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batches * batch, 32, 32, 3)).astype("float32")
    labels = random.integers(0, 4, batches * batch)
    return tf.data.Dataset.from_tensor_slices((images, labels)).repeat().batch(batch)


def optimizer_for(model, name="sgd", **keywords):
    keywords = {"learning_rate": 0.1, "weight_decay": 0.0, "steps": 100, "warmup_steps": 0} | keywords
    return make_optimizer(name, model=model, **keywords)


def test_a_step_is_that_of_model_fit():
    """Against Keras' own loop, on the same batches from the same weights."""
    keras.utils.set_random_seed(0)
    ours = kvision.models.efficientnet_lite0(dropout_rate=0.0, drop_path_rate=0.0, **SHALLOW)
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    theirs.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100), momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = theirs.fit(dataset(), steps_per_epoch=3, epochs=1, verbose=0, shuffle=False)
    loop = Loop(ours, optimizer_for(ours), tf.distribute.get_strategy())
    sums = loop.train(iter(dataset()), tf.constant(3))
    assert means(sums)["loss"] == pytest.approx(history.history["loss"][0], rel=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_side_classifiers_count_in_training_and_are_left_out_after(tmp_path):
    keras.utils.set_random_seed(0)
    columns = SMALL | {"input_shape": (64, 64, 3)}
    model = kvision.models.googlenet_bn(auxiliary=True, dropout_rate=0.0, **columns)
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
    loop = Loop(model, keras.optimizers.SGD(1.0), tf.distribute.get_strategy())
    data = tf.data.Dataset.from_tensors((images, labels))
    sums = loop.train(iter(data), tf.constant(1))
    assert means(sums)["loss"] == pytest.approx(float(losses["predictions"]), rel=1e-4)
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


def test_evaluation_counts_every_image():
    model = kvision.models.mobilenet_v1(**SMALL)
    loop = Loop(model, optimizer_for(model), tf.distribute.get_strategy(), label_smoothing=0.1)
    data = dataset(batch=8).take(3).unbatch().batch(10)  # the last batch has 4
    images, labels = (np.concatenate(part) for part in zip(*data.as_numpy_iterator(), strict=True))
    logits = model(images, training=False)
    result = loop.evaluate(data)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert result["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert result["accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == labels))


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_spares_norms_and_biases(name):
    model = kvision.models.mobilenet_v1(**SMALL)
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


@pytest.mark.parametrize("name", [pytest.param("sgd", marks=pytest.mark.slow), "adamw"])
def test_a_restored_run_goes_on_bit_for_bit(name, tmp_path):
    """With dropout and stochastic depth, whose seeds `tf.train.Checkpoint` would leave out."""

    def start():
        keras.utils.set_random_seed(0)
        model = kvision.models.efficientnet_lite0(drop_path_rate=0.5, dropout_rate=0.5, **SHALLOW)
        optimizer = optimizer_for(model, name, learning_rate=0.01)
        return model, optimizer, Loop(model, optimizer, tf.distribute.get_strategy())

    model, optimizer, loop = start()
    batches = iter(dataset())
    loop.train(batches, tf.constant(3))
    checkpoints.save(tmp_path, 3, model, optimizer, {"epoch": 1})
    loop.train(batches, tf.constant(3))

    again, optimizer, loop = start()
    assert checkpoints.restore(tmp_path, again, optimizer) == {"epoch": 1}
    loop.train(iter(dataset().skip(3)), tf.constant(3))
    for a, b in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def test_checkpoints_are_kept_whole_and_of_one_network(tmp_path):
    model = kvision.models.mobilenet_v1(**SMALL)
    optimizer = optimizer_for(model)
    assert checkpoints.restore(tmp_path, model, optimizer) is None
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, model, optimizer, {"step": step})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step_00000002.safetensors",
        "step_00000003.safetensors",
    ]
    (tmp_path / "step_00000004.tmp").write_bytes(b"a write that was cut off")
    assert checkpoints.restore(tmp_path, model, optimizer) == {"step": 3}
    other = kvision.models.mobilenet_v2(**SMALL)
    with pytest.raises(ValueError, match="another network"):
        checkpoints.restore(tmp_path, other, optimizer_for(other))


STRATEGIES = """
import sys
import keras, tensorflow as tf
sys.path.insert(0, {tests!r})
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import kvision
from kvision_tools.loop import Loop, means
from kvision_tools.strategy import make_strategy
from test_loop import SHALLOW, dataset, optimizer_for
strategy = make_strategy(sys.argv[1])
keras.utils.set_random_seed(0)
with strategy.scope():
    # frozen statistics: without synchronised batch norm each replica would have its own
    model = kvision.models.efficientnet_lite0(dropout_rate={dropout}, drop_path_rate={dropout}, **SHALLOW)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and not {dropout}:
            layer.trainable = False
    optimizer = optimizer_for(model)
loop = Loop(model, optimizer, strategy)
batches = iter(strategy.experimental_distribute_dataset(dataset()))
losses = [means(loop.train(batches, tf.constant(steps)))["loss"] for steps in (1, 2, 3)]
losses.append(loop.evaluate(dataset().take(2))["loss"])
print(strategy.num_replicas_in_sync, *losses)
"""


def run_strategy(name, dropout):
    code = STRATEGIES.format(tests=str(__file__).rpartition("/")[0], dropout=dropout)
    output = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr[-2000:]
    return [float(word) for word in output.stdout.split()]


def test_two_devices_give_the_losses_of_one():
    one, two = run_strategy("one", 0.0), run_strategy("mirrored", 0.0)
    assert (one[0], two[0]) == (1, 2)
    np.testing.assert_allclose(two[1:], one[1:], rtol=1e-5)


@pytest.mark.slow
def test_two_devices_train_with_dropout_and_batch_statistics():
    assert np.isfinite(run_strategy("mirrored", 0.2)).all()
