"""Frozen layers and learning rates by depth."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from helpers import TINY, command, dark_and_light, examples, make_loop, mostly_slow, run_python, tiny

import kvision
from kvision_tools import checkpoints
from kvision_tools.choices import LEARNING_RATES
from kvision_tools.optimizers import make_optimizer
from kvision_tools.transfer import freeze

RATE, DECAY, LAYER_DECAY = 0.1, 0.3, 0.5
COLUMNS = {"input_shape": (32, 32, 3), "classifier_activation": None, "dropout_rate": 0.0}


def optimizer_for(model, name="sgd", **keywords):
    keywords = {"learning_rate": RATE, "weight_decay": DECAY, "steps": 10**9, "warmup_steps": 0} | keywords
    return make_optimizer(name, model=model, **keywords)


def dataset():
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (16, 32, 32, 3)).astype("float32")
    return examples(images, random.integers(0, 3, 16)).repeat().batch(8)


def values(model):
    return {v.path: v.numpy() for v in model.variables}


def paths(model, groups):
    return {v.path for names in groups for name in names for v in model.get_layer(name).variables}


def first_step(name, gradient, rate):
    """The decrease by the first step, from each method's paper."""
    if name == "sgd":  # Nesterov's momentum
        return 1.9 * rate * gradient
    if name == "rmsprop":
        return rate * gradient / np.sqrt(0.1 * gradient**2 + 1e-3)
    return rate * gradient / (np.abs(gradient) + 1e-7 / np.sqrt(1 - 0.999))  # Adam, without its bias


@pytest.mark.parametrize("name", LEARNING_RATES)
@pytest.mark.parametrize("compiled", mostly_slow([False, True], False))
def test_a_step_has_the_rate_of_its_group(name, compiled):
    model = tiny("lenet5", classifier_activation=None)
    optimizer = optimizer_for(model, name, layer_decay=LAYER_DECAY)
    groups = kvision.depth_groups(model)
    depth = {path: i for i, group in enumerate(groups) for path in paths(model, [group])}
    random = np.random.default_rng(0)
    gradients = [random.normal(0, 1, v.shape).astype("float32") for v in model.trainable_variables]
    before = [v.numpy() for v in model.trainable_variables]
    tf.function(lambda: optimizer.apply(gradients, model.trainable_variables), jit_compile=compiled)()
    assert len(groups) == 3
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        rate = RATE * LAYER_DECAY ** (2 - depth[variable.path])
        expected = old * (1 - rate * DECAY * (old.ndim > 1)) - first_step(name, gradient, rate)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)


def test_no_layer_decay_is_the_plain_optimizer():
    model = tiny("lenet5", classifier_activation=None)
    assert "update_step" not in vars(optimizer_for(model))
    assert "update_step" in vars(optimizer_for(model, layer_decay=0.9))


@pytest.mark.parametrize("what", mostly_slow(["trunk", "3", "none"], "trunk"))
def test_frozen_groups_stay_as_they_are(what):
    """In training, with weight decay, and batch statistics among them."""
    keras.utils.set_random_seed(0)
    model = tiny("vgg11_bn", **COLUMNS)
    freeze(model, what)
    groups = kvision.depth_groups(model)
    count = {"trunk": len(groups) - 1, "3": 3, "none": 0}[what]
    frozen = paths(model, groups[:count])
    before = values(model)
    images = next(iter(dataset()))["image"]
    trunk = kvision.features(model, ["c1", "c5"])
    features = trunk(images, training=True)
    loop = make_loop(model, optimizer_for(model, "adamw", layer_decay=0.9))
    loop.train(iter(dataset()), tf.constant(2))
    after = values(model)
    same = {path for path, value in after.items() if np.array_equal(value, before[path])}
    assert same - {path for path in same if "seed_generator" in path} == frozen
    for tap, still in (("c1", what != "none"), ("c5", what == "trunk")):
        again = trunk(images, training=True)[tap]
        assert np.array_equal(features[tap], again) == still
        assert np.array_equal(again, trunk(images, training=False)[tap]) == still


def test_a_frozen_run_is_restored_whole(tmp_path):
    def start():
        keras.utils.set_random_seed(len(list(tmp_path.iterdir())))
        model = tiny("vgg11_bn", **COLUMNS)
        freeze(model, "trunk")
        optimizer = optimizer_for(model, layer_decay=0.9)
        return model, make_loop(model, optimizer)

    model, loop = start()
    loop.train(iter(dataset()), tf.constant(1))
    checkpoints.save(tmp_path, 1, loop, {})
    again, loop = start()
    assert not np.array_equal(again.get_layer("features.0").kernel, model.get_layer("features.0").kernel)
    checkpoints.restore(tmp_path, loop)
    for a, b in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.parametrize("what", ["-1", "15", "head", "2.5", ""])
def test_what_cannot_be_frozen(what):
    model = tiny("mobilenet_v1")
    with pytest.raises(ValueError, match="none, trunk or a number from 0 to 14.* has 15 groups") as error:
        freeze(model, what)
    assert repr(what) in str(error.value)
    assert all(layer.trainable for layer in model.layers)


DEVICES = """
import numpy as np, keras, sys, tensorflow as tf
sys.path += {paths}
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from helpers import make_loop, tiny
from test_transfer import COLUMNS, dataset, optimizer_for, values
import kvision
from kvision_tools.strategy import Cluster, make_strategy
from kvision_tools.transfer import freeze

results = []
for name in ("one", "mirrored"):
    strategy = make_strategy(name, Cluster())
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tiny("vgg11_bn", **COLUMNS)
        freeze(model, "trunk")
        model.get_layer("features.0").trainable = True  # a layer of the trunk that has no statistics
        optimizer = optimizer_for(model, "adamw", learning_rate=0.01, layer_decay=0.5)
    loop = make_loop(model, optimizer, strategy)
    loop.train(iter(strategy.experimental_distribute_dataset(dataset())), tf.constant(3))
    results.append(values(model))
assert strategy.num_replicas_in_sync == 2
for path, value in results[0].items():
    np.testing.assert_allclose(value, results[1][path], atol=1e-5, err_msg=path)
"""


def test_two_devices_train_like_one():
    here = Path(__file__).parent
    run_python(DEVICES.format(paths=[str(here), str(here.parent)]))


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = dark_and_light(tmp_path_factory.mktemp("images"))
    return ["kvision-train", *TINY, f"--data=folder:{root}", "--batch_size=16", "--epochs=2"]


@pytest.mark.slow
def test_a_run_with_a_frozen_trunk_goes_on_and_evaluates(flags, tmp_path):
    run = tmp_path / "run"
    flags = [*flags, "--freeze=trunk", "--layer_decay=0.7", "--weight_decay=0.1", f"--output={run}"]
    command(*flags)
    first, second = sorted((run / "checkpoints").iterdir())
    before, after = safetensors.numpy.load_file(first), safetensors.numpy.load_file(second)
    moved = {key for key, value in after.items() if not np.array_equal(value, before[key])}
    assert {key for key in moved if key.startswith("model/")} >= {
        "model/fc/kernel",
        "model/fc/bias",
    }
    assert not [
        key for key in moved if key.startswith("model/") and "/fc/" not in key and "dropout" not in key
    ]
    metrics = (run / "metrics.csv").read_text().splitlines()
    second.unlink()
    assert "Going on after step 4" in command(*flags)
    again = safetensors.numpy.load_file(second)
    for key, value in after.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)
    assert (run / "metrics.csv").read_text().splitlines()[1] == metrics[1]
    model = keras.models.load_model(run / "model.keras")
    assert type(model.optimizer) is keras.optimizers.SGD
    assert [v.path for v in model.trainable_variables] == ["fc/kernel", "fc/bias"]
    assert "top-1" in command("kvision-evaluate", f"--model={run}")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--freeze=15", "resnet18 has 6 groups of layers; got '15'"),
        ("--freeze=head", "none, trunk or a number from 0 to 5"),
        ("--layer_decay=0", "must be positive"),
        ("--layer_decay=1.5", "layer_decay"),
    ],
)
def test_errors_are_one_sentence(flags, flag, words, tmp_path):
    assert words in command(*flags, flag, f"--output={tmp_path / 'run'}", code=2)
    assert not (tmp_path / "run").exists()
