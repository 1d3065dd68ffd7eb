"""Epochs around the step: Keras callbacks, going on after a kill, SIGTERM and NaN losses."""

import csv
import os
import random
import signal
import time

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from helpers import command, start

from kvision_tools.loop import Loop
from kvision_tools.trainer import REQUEUE, Trainer

RANDOM = [  # dropout, stochastic depth, augmentation and a moving average; the same bits again
    "--model=efficientnet_lite0", "--model_kwarg=width_multiplier=0.1", "--model_kwarg=depth_multiplier=0.3",
    "--model_kwarg=drop_path_rate=0.3", "--model_kwarg=dropout_rate=0.3", "--image_size=32", "--data=digits",
    "--augment=crop_flip", "--ema_decay=0.9", "--batch_size=64", "--epochs=2", "--deterministic",
    "--steps_per_loop=2", "--checkpoint_steps=5",
]  # fmt: skip


def batches(step=0, nans=0, size=8, bad=None):
    """Two clouds of points; from a step on, and with an infinity in step `bad` until the first NaN loss."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 64)
    points = (random.normal(0, 1, (64, 2)) + labels[:, None]).astype("float32")

    def poisoned(index, batch):
        return tf.where(index == (-1 if bad is None or nans else bad), np.inf, batch[0]), batch[1]

    data = tf.data.Dataset.from_tensor_slices((points, labels)).repeat().batch(size)
    return iter(data.enumerate().map(poisoned).skip(step))


def trainer(folder=None, rate=0.1, **keywords):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])
    optimizer = keras.optimizers.SGD(rate)
    optimizer.build(model.trainable_variables)
    loop = Loop(model, optimizer, tf.distribute.get_strategy())
    validation = tf.data.Dataset.from_tensors(next(batches(size=64)))
    keywords = {"steps": 8, "epochs": 4, "steps_per_loop": 3, "folder": folder} | keywords
    return Trainer(loop, keywords.pop("batches", batches), validation, **keywords)


def test_callbacks_of_keras(tmp_path):
    run = trainer(epochs=9)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=10.0)
    history = run.fit(
        [
            stop,
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=10.0),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", save_best_only=True),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TensorBoard(tmp_path / "tensorboard"),
        ]
    )
    assert len(history) == stop.stopped_epoch + 1 == 3
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    assert [row["learning_rate"] for row in history] == pytest.approx([0.1, 0.1, 0.05])
    saved = keras.saving.load_model(tmp_path / "3.keras")
    np.testing.assert_array_equal(saved.get_layer("dense").kernel, run.model.get_layer("dense").kernel)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_accuracy"]) for row in rows] == [row["val_accuracy"] for row in history]
    assert list((tmp_path / "tensorboard").rglob("events*"))


def test_a_schedule_of_keras_and_batches_that_are_counted():
    class Counter(keras.callbacks.Callback):
        seen: list = []  # noqa: RUF012

        def on_train_batch_end(self, batch, logs):
            self.seen.append((batch, logs["steps"]))

    run = trainer(epochs=2)
    history = run.fit([Counter(), keras.callbacks.LearningRateScheduler(lambda epoch, _: 0.1 / (epoch + 1))])
    assert [row["learning_rate"] for row in history] == pytest.approx([0.1, 0.05])
    assert Counter.seen == 2 * [(2, 3), (5, 3), (7, 2)]


def test_a_loss_that_is_not_finite_goes_back_to_the_last_checkpoint(tmp_path, capsys):
    def poisoned(step, nans):
        return batches(step, nans, bad=12)

    run = trainer(tmp_path, batches=poisoned, nan_rate_factor=0.5, checkpoint_steps=4)
    history = run.fit()
    assert len(history) == 4
    assert np.isfinite(run.model.get_layer("dense").kernel).all()
    assert float(run.optimizer.learning_rate) == pytest.approx(0.05)
    assert (
        "back to step 12, with other images from there on and 0.5 of the learning rate"
        in capsys.readouterr().err
    )


def test_a_loss_that_stays_infinite_ends_the_run(tmp_path):
    with pytest.raises(
        FloatingPointError, match="The loss is .* in step .*, after going back 2 times: lower the"
    ):
        trainer(tmp_path, rate=1e38, nan_restores=2).fit()
    with pytest.raises(FloatingPointError, match="after going back 0 times"):
        trainer(rate=1e38).fit()


def test_commands_say_that_the_loss_was_nan(tmp_path):
    sentence = command("kvision-train", "--model=lenet5", "--channels=1", "--data=digits", "--nan_restores=1",
                       "--learning_rate=1e38", f"--output={tmp_path / 'run'}", code=2)  # fmt: skip
    assert "after going back 1 times: lower the learning rate" in sentence


def newest(run):
    steps = [int(path.stem.removeprefix("step_")) for path in run.glob("checkpoints/*.safetensors")]
    return max(steps, default=-1)


def tensors(run):
    return safetensors.numpy.load_file(run / f"checkpoints/step_{newest(run):08d}.safetensors")


def kill_after(step, run, number):
    """Starts the run and signals it a moment after a checkpoint of that step or a later one."""
    process = start("kvision-train", *RANDOM, f"--output={run}")
    while newest(run) < step and process.is_alive():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    os.kill(process.pid, number)
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_killed_runs_end_with_the_bits_of_an_unbroken_one(tmp_path):
    command("kvision-train", *RANDOM, f"--output={tmp_path / 'whole'}")
    run = tmp_path / "killed"
    for step in (random.randrange(1, 15), random.randrange(20, 32)):
        assert kill_after(step, run, signal.SIGKILL) == -signal.SIGKILL
        assert step <= newest(run) < 44
    before = newest(run)
    assert kill_after(before + 1, run, signal.SIGTERM) == REQUEUE
    assert before < newest(run) < 44
    assert f"Going on after step {newest(run)} of" in command("kvision-train", *RANDOM, f"--output={run}")
    whole, killed = tensors(tmp_path / "whole"), tensors(run)
    assert whole.keys() == killed.keys()
    assert any("seed_generator" in name for name in whole)
    assert any(name.startswith("loop/ema") for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, killed[name], err_msg=name)
    metrics = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "killed")]
    columns = metrics[0][0].split(",")
    for rows in zip(*metrics, strict=True):
        for column, *values in zip(columns, *(row.split(",") for row in rows), strict=True):
            assert values[0] == values[1] or column == "images_per_second"
