"""Epochs around the step: Keras callbacks, files of the run, checkpoints and NaN losses."""

import csv
import itertools
import re
import resource

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf
from helpers import command, mostly_slow

from kvision.tasks import Classification
from kvision_tools import checkpoints
from kvision_tools.callbacks import EventFiles, Progress, RunFiles, print_table
from kvision_tools.loop import Loop
from kvision_tools.startup import REQUEUE
from kvision_tools.trainer import Trainer

TASK = Classification(class_names=("left", "right"))


def batches(step=0, nans=0, size=8, bad=None):
    """Two clouds of points; from a step on, and with an infinity in step `bad` until the first NaN loss."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 64)
    points = (random.normal(0, 1, (64, 2)) + labels[:, None]).astype("float32")

    def poisoned(index, batch):
        infinite = index == (-1 if bad is None or nans else bad)
        return batch | {"image": tf.where(infinite, np.inf, batch["image"])}

    examples = {"image": points, "label": labels, "weight": np.ones(64, "float32")}
    data = tf.data.Dataset.from_tensor_slices(examples).repeat().batch(size)
    return iter(data.enumerate().map(poisoned).skip(step))


def trainer(folder=None, rate=0.1, **keywords):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")], name="network")
    optimizer = keras.optimizers.SGD(rate, name="sgd")
    optimizer.build(model.trainable_variables)
    loop = Loop(model, optimizer, tf.distribute.get_strategy(), TASK)
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


def test_batches_are_renewed_at_a_step(tmp_path):
    """In a run that goes on from there too, and once."""
    made = []

    def noted(step, nans):
        made.append(step)
        return batches(step, nans)

    trainer(tmp_path, batches=noted, epochs=2, renewed_at=16).fit()
    trainer(tmp_path, batches=noted, epochs=4, renewed_at=16).fit()
    assert made == [0, 16]
    trainer(batches=noted, epochs=4, renewed_at=16).fit()
    assert made == [0, 16, 0, 16]


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


def test_a_loss_that_is_not_finite_goes_back_over_a_damaged_checkpoint(tmp_path):
    """The epoch that is taken anew has a row of its own."""

    class Damage(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                paths = [path for path in tmp_path.rglob("*16*") if path.is_file()]
                assert paths
                for path in paths:
                    path.write_bytes(bytes(9))

    def poisoned(step, nans):
        return batches(step, nans, bad=18)

    run = trainer(tmp_path, batches=poisoned)
    history = run.fit([Damage()])
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert run.step == 32


def test_a_loss_that_stays_infinite_ends_the_run(tmp_path):
    with pytest.raises(
        FloatingPointError, match="The loss is .* in step .*, after going back 2 times: lower the"
    ):
        trainer(tmp_path, rate=1e38, nan_restores=2).fit()
    with pytest.raises(FloatingPointError, match="after going back 0 times"):
        trainer(rate=1e38).fit()


def test_weights_that_are_not_finite_are_not_the_learning_rate(tmp_path):
    whole = trainer(tmp_path, epochs=2)
    whole.fit()
    kernel = whole.model.get_layer("dense").kernel
    for folder in (None, tmp_path):
        kernel.assign(np.full((2, 2), np.nan))
        with pytest.raises(ValueError, match="dense/kernel is not finite before the first step"):
            Trainer(whole.loop, batches, (), steps=8, epochs=2, folder=folder and tmp_path / "new")


def test_a_checkpoint_that_holds_nan_is_passed_over(tmp_path, capsys):
    expected = trainer(tmp_path / "whole").fit()
    half = trainer(tmp_path / "half", epochs=2)
    half.fit()
    half.model.get_layer("dense").kernel.assign(np.full((2, 2), np.nan))
    checkpoints.save(tmp_path / "half", 16, half.loop, half._state())
    again = trainer(tmp_path / "half")
    assert "holds NaN or infinity in 'model/network/dense/kernel'; going on" in capsys.readouterr().err
    assert again.step == 8
    clock = {"images_per_second"}
    for row, other in zip(expected, again.fit(), strict=True):
        assert {k: v for k, v in row.items() if k not in clock} == {k: other[k] for k in row.keys() - clock}
    assert not capsys.readouterr().err


class Cut:
    """Validation batches, of which one asks the trainer to end."""

    def __init__(self, batches, at):
        self.batches, self.left, self.run = batches, at, None

    def __iter__(self):
        for batch in self.batches:
            self.left -= 1
            if not self.left:
                self.run.ask("SIGTERM")
            yield batch


def comparable(history):
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in history]


@pytest.mark.parametrize(  # of the first epoch's weights and their average, and of the next
    "batch", mostly_slow([2, 4, 6, 8], 6)
)
def test_an_end_that_is_asked_for_in_a_validation(batch, tmp_path, capsys):
    def with_average(folder):
        run = trainer()
        loop = Loop(run.model, run.optimizer, tf.distribute.get_strategy(), TASK, ema_decay=0.5)
        validation = list(itertools.islice(batches(size=16), 4))
        return Trainer(loop, batches, validation, steps=8, epochs=3, steps_per_loop=3, folder=folder)

    expected = with_average(tmp_path / "whole")
    expected.fit()
    run = with_average(tmp_path / "cut")
    run.validation = Cut(run.validation, batch)
    run.validation.run = run
    with pytest.raises(SystemExit) as end:
        run.fit()
    assert end.value.code == REQUEUE
    assert run.validation.left == 0  # no later batch was evaluated
    assert f"SIGTERM: saved after step {8 + 8 * (batch > 8)}; " in capsys.readouterr().err
    again = with_average(tmp_path / "cut")
    assert comparable(again.fit()) == comparable(expected.history)
    assert again.history[0]["images_per_second"] > 0
    for one, other in zip(again.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoints_of_earlier_versions_that_lack_the_training_time(tmp_path):
    run = trainer(tmp_path, epochs=1)
    run.fit()
    state = run._state()
    del state["seconds"]
    checkpoints.save(tmp_path, run.step, run.loop, state)
    assert trainer(tmp_path).step == 8


def test_an_epoch_or_a_validation_without_images_is_an_error(tmp_path):
    trainer(tmp_path, epochs=1).fit()
    with pytest.raises(ValueError, match="Epoch 2 would end at step 4, but the run is after step 8"):
        trainer(tmp_path, steps=2).fit()
    run = trainer()
    run.validation = run.validation.take(0)
    with pytest.raises(ValueError, match="No image could be read"):
        run.fit()


def row(epoch, accuracy, loss, **more):
    return {"epoch": epoch, "loss": 1.0, "val_accuracy": accuracy, "val_loss": loss, **more}


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([row(1, 0.5, 0.9), row(2, 0.5, 0.7), row(3, 0.5, 0.8)], 2),
        pytest.param([row(1, 0.5, 0.7), row(2, 0.6, 0.9), row(3, 0.5, 0.1)], 2, marks=pytest.mark.slow),
        pytest.param([row(1, 0.5, 0.7), row(2, 0.5, 0.7)], 1, marks=pytest.mark.slow),
        ([row(1, 0.5, float("nan")), row(2, 0.5, 0.7), row(3, 0.5, float("nan"))], 2),
        pytest.param([row(1, 0.0, 0.7), row(2, 0.0, 0.6)], 2, marks=pytest.mark.slow),
    ],
)
def test_of_equal_accuracies_the_lower_loss_is_kept(rows, kept, tmp_path, capsys):
    run, history = trainer(), []
    files = RunFiles(tmp_path, run.loop, history)
    files.set_model(run.model)
    for number, values in enumerate(rows):
        run.model.get_layer("dense").bias.assign([float(number + 1)] * 2)
        history.append(values)
        files.on_epoch_end(number, {})
    saved = keras.saving.load_model(tmp_path / "model.keras").get_layer("dense").bias
    np.testing.assert_array_equal(saved, [kept] * 2)
    print_table(rows, "accuracy")
    assert f"best: epoch {kept}" in capsys.readouterr().out


@pytest.mark.parametrize(("loss", "kept"), [(0.6, 7.0), (0.7, 1.0), (0.8, 1.0)])
def test_the_average_of_weights_is_kept_where_its_loss_is_lower(loss, kept, tmp_path):
    run = trainer()
    loop = Loop(run.model, run.optimizer, tf.distribute.get_strategy(), TASK, ema_decay=0.5)
    run.model.get_layer("dense").bias.assign([1.0, 1.0])
    loop._averages[-1].assign([7.0, 7.0])
    history = [row(1, 0.5, 0.7, val_ema_accuracy=0.5, val_ema_loss=loss)]
    files = RunFiles(tmp_path, loop, history)
    files.set_model(run.model)
    files.on_epoch_end(0, {})
    saved = keras.saving.load_model(tmp_path / "model.keras").get_layer("dense").bias
    np.testing.assert_array_equal(saved, [kept] * 2)
    np.testing.assert_array_equal(run.model.get_layer("dense").bias, [1.0, 1.0])


def test_the_progress_line_has_metrics_once_there_are_some():
    progress = Progress("accuracy", epochs=2, steps=8, first=0, batch_size=8)
    progress.set_model(trainer().model)

    def line():
        console = rich.console.Console(width=200)
        with console.capture() as printed:
            console.print(progress.bar.get_renderable())
        return printed.get()

    progress.on_epoch_begin(0, {})
    assert "epoch 1/2" in line()
    assert not re.search("nan|loss|images/s", line())
    progress.on_train_batch_end(2, {"loss": 0.5, "accuracy": 0.25})
    assert "loss 0.500 accuracy 0.250 rate 0.1" in line()
    assert "images/s" not in line()  # the first call traced
    progress.on_train_batch_end(5, {"loss": 0.5, "accuracy": 0.25})
    assert re.search("[1-9][0-9]* images/s", line())
    progress.on_epoch_begin(1, {})
    progress.on_train_batch_end(2, {"loss": 0.5, "accuracy": 0.25})
    assert re.search("[1-9][0-9]* images/s", line())


def write_epochs(events, count):
    for epoch in range(count):
        events.on_epoch_end(epoch, {"loss": 1.0, "accuracy": 0.5})


def test_event_files_on_a_full_disk(tmp_path):
    events = EventFiles(tmp_path)
    events.set_model(trainer().model)
    events.on_train_begin()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            write_epochs(events, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_commands_say_that_the_loss_was_nan(tmp_path):
    sentence = command("kvision-train", "--model=lenet5", "--channels=1", "--data=digits", "--nan_restores=1",
                       "--learning_rate=1e38", f"--output={tmp_path / 'run'}", code=2)  # fmt: skip
    assert "after going back 1 time: lower the learning rate" in sentence
