"""kvision-train: trains a network on a dataset and leaves a run folder.

    kvision-train --model=mobilenet_v2 --data=digits --image_size=64 --epochs=10 --output=runs/digits

The folder holds flags.txt (repeat with --flagfile), metrics.csv, TensorBoard events, curves.png,
model.keras (the best on validation, with logits as its output), labels.txt and checkpoints. The same
command on the same folder goes on after the last finished epoch.
"""

import ast
import math
import os
import shutil
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags

import kvision
import kvision.data
from kvision import _cli, runs
from kvision.data.images import INTERPOLATIONS
from kvision.data.load import AUGMENTATIONS
from kvision_tools import checkpoints, optimizers, strategy, transfer
from kvision_tools.callbacks import Progress, RunFiles
from kvision_tools.loop import Loop, means

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A name that kvision-info lists.", required=True)
flags.DEFINE_multi_string(
    "model_kwarg", [], "KEY=VALUE of the builder, repeatable: --model_kwarg=width_multiplier=0.35"
)
flags.DEFINE_string("weights", None, f"To start from: {runs.WEIGHTS}.")
flags.DEFINE_string("freeze", "none", "none, trunk (all but the top), or N: the first N groups by depth.")
flags.DEFINE_string("data", None, "digits, folder:PATH or tfds:NAME.", required=True)
flags.DEFINE_float("val_fraction", 0.2, "Share held out where the dataset has no split of its own.")
flags.DEFINE_bool("strict", False, "End the run at a file that is no image.")
flags.DEFINE_integer("image_size", None, "Height and width in pixels; the network's own by default.", 1)
flags.DEFINE_integer("channels", 3, "3 for RGB, 1 for grey.")
flags.DEFINE_enum("augment", "none", AUGMENTATIONS, "Random boxes of the training images, mirrored too.")
flags.DEFINE_float("min_crop_area", 0.08, "Smallest share of an image that --augment cuts out.")
flags.DEFINE_float("crop", None, "Share of the resized side that is evaluated; the weights' own, or 1.", 0, 1)
flags.DEFINE_enum("interpolation", None, INTERPOLATIONS, "Before --crop; the weights' own, or bilinear.")
flags.DEFINE_integer("epochs", 10, "Passes over the training images.", 1)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices.", 1)
flags.DEFINE_enum("optimizer", "sgd", optimizers.NAMES, "Its settings: kvision_tools/optimizers.py.")
flags.DEFINE_float("learning_rate", 0.05, "At its peak.", 0)
flags.DEFINE_float("warmup_epochs", 1.0, "Of linear growth, before the cosine.", 0)
flags.DEFINE_float("weight_decay", 0.0, "Decoupled; spares norms and biases.", 0)
flags.DEFINE_float("layer_decay", 1.0, "Of the learning rate, for each group of layers behind.", 0, 1)
flags.DEFINE_float("label_smoothing", 0.0, "Share of the label spread over all classes.", 0, 1)
flags.DEFINE_float("norm_momentum", None, "Of the batch norms; a short run needs 0.9.", 0, 1)
flags.DEFINE_enum("strategy", "auto", strategy.NAMES, "Which devices share a step.")
flags.DEFINE_integer("steps_per_loop", 10, "Steps in one call of the device.", 1)
flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.", 0)
flags.DEFINE_string("output", None, "The run folder; runs/MODEL by default.")
flags.DEFINE_bool("overwrite", False, "Start anew in a folder that holds another run.")

NOT_OF_THE_RUN = ("output", "overwrite")  # what may differ when a run goes on


def main(positional):
    with _cli.user_errors():
        if positional:
            raise ValueError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        run = Run()
    run.train()


class Run:
    """Everything of a run but the training itself, opened and checked from the flags."""

    def __init__(self):
        if FLAGS.learning_rate <= 0:
            raise ValueError(f"`--learning_rate` must be positive; got {FLAGS.learning_rate}.")
        if FLAGS.layer_decay <= 0:
            raise ValueError(f"`--layer_decay` must be positive; got {FLAGS.layer_decay}.")
        if FLAGS.warmup_epochs >= FLAGS.epochs:
            raise ValueError(
                f"`--warmup_epochs` ({FLAGS.warmup_epochs}) must be below --epochs ({FLAGS.epochs})."
            )
        size = FLAGS.image_size or kvision.info(FLAGS.model).variant.image_size
        self.image_shape = (size, size, FLAGS.channels)
        crop, interpolation = runs.evaluation(FLAGS.model, FLAGS.weights, size)
        FLAGS.crop = FLAGS.crop or crop
        FLAGS.interpolation = FLAGS.interpolation or interpolation
        self.strategy = strategy.make_strategy(FLAGS.strategy)
        replicas = self.strategy.num_replicas_in_sync
        if FLAGS.batch_size % replicas:
            raise ValueError(
                f"`--batch_size` {FLAGS.batch_size} must be divisible by the {replicas} devices."
            )
        self.val_data = self.load("val")
        train_data = self.load("train")
        self.class_names = train_data.class_names
        self.steps = train_data.size // FLAGS.batch_size
        if not self.steps:
            raise ValueError(
                f"`--batch_size` {FLAGS.batch_size} exceeds the {train_data.size} training images."
            )
        keras.utils.set_random_seed(FLAGS.seed)
        with self.strategy.scope():
            self.model = build_model(self.image_shape, len(self.class_names))
            transfer.freeze(self.model, FLAGS.freeze)
            self.optimizer = optimizers.make_optimizer(
                FLAGS.optimizer,
                model=self.model,
                learning_rate=FLAGS.learning_rate,
                weight_decay=FLAGS.weight_decay,
                steps=self.steps * FLAGS.epochs,
                warmup_steps=round(self.steps * FLAGS.warmup_epochs),
                layer_decay=FLAGS.layer_decay,
            )
            self.model.compile(optimizer=self.optimizer)  # callbacks look for the optimizer here
        self.folder = open_folder(Path(FLAGS.output or f"runs/{FLAGS.model}"), self.class_names)
        state = checkpoints.restore(self.folder / "checkpoints", self.model, self.optimizer)
        self.history = state["history"] if state else []

    def load(self, split, **keywords) -> kvision.data.Data:
        return kvision.data.load(
            FLAGS.data,
            split,
            image_size=self.image_shape[:2],
            channels=self.image_shape[2],
            batch_size=FLAGS.batch_size,
            val_fraction=FLAGS.val_fraction,
            crop=FLAGS.crop,
            interpolation=FLAGS.interpolation,
            seed=FLAGS.seed,
            **keywords,
        )

    def train(self):
        first = len(self.history)
        if first >= FLAGS.epochs:
            print(f"{self.folder} has all of its {FLAGS.epochs} epochs; --overwrite starts anew.")
            return
        if first:
            print(f"Going on after epoch {first} of {self.folder}.")
        data = self.load(
            "train",
            training=True,
            augment=FLAGS.augment,
            min_crop_area=FLAGS.min_crop_area,
            start=first * self.steps * FLAGS.batch_size,
        )
        batches = iter(self.strategy.experimental_distribute_dataset(data.dataset))
        loop = Loop(self.model, self.optimizer, self.strategy, label_smoothing=FLAGS.label_smoothing)
        callbacks = keras.callbacks.CallbackList(
            [
                keras.callbacks.TensorBoard(self.folder / "tensorboard", write_graph=False),
                RunFiles(self.folder, self.history),
                Progress(FLAGS.epochs, self.steps, first, FLAGS.batch_size),
            ],
            model=self.model,
        )
        callbacks.on_train_begin()
        try:
            for epoch in range(first, FLAGS.epochs):
                callbacks.on_epoch_begin(epoch)
                logs = self.train_epoch(loop, batches, callbacks, data.unreadable)
                validation = loop.evaluate(self.val_data.dataset)
                self.check_files(self.val_data.unreadable)
                callbacks.on_epoch_end(
                    epoch, logs | {f"val_{key}": value for key, value in validation.items()}
                )
                step = (epoch + 1) * self.steps
                state = {"history": self.history}
                checkpoints.save(self.folder / "checkpoints", step, self.model, self.optimizer, state)
                if self.model.stop_training:
                    break
        finally:
            callbacks.on_train_end()
        self.report(data.unreadable + self.val_data.unreadable)

    def train_epoch(self, loop, batches, callbacks, unreadable) -> dict[str, float]:
        totals, done, started = 0, 0, time.monotonic()
        while done < self.steps:
            steps = min(FLAGS.steps_per_loop, self.steps - done)
            sums = loop.train(batches, tf.constant(steps))
            totals, done = totals + sums, done + steps
            callbacks.on_train_batch_end(done - 1, {"steps": steps, **means(sums)})
            self.check_files(unreadable)
        logs = means(totals)
        if not math.isfinite(logs["loss"]):
            sys.exit(f"The loss is {logs['loss']}: lower --learning_rate or lengthen --warmup_epochs.")
        speed = self.steps * FLAGS.batch_size / (time.monotonic() - started)
        return logs | {"learning_rate": float(self.optimizer.learning_rate), "images_per_second": speed}

    def check_files(self, unreadable):
        if FLAGS.strict:
            with _cli.user_errors():
                runs.report_unreadable(unreadable, strict=True)

    def report(self, unreadable):
        runs.report_unreadable(unreadable, strict=False)
        best = max(self.history, key=lambda row: row["val_accuracy"])
        print(f"Best on validation: {best['val_accuracy']:.4f} in epoch {best['epoch']}.")
        print(f"Run folder: {self.folder}")


def build_model(input_shape, num_classes) -> keras.Model:
    """The network of the flags, with logits."""
    keywords = {}
    for item in FLAGS.model_kwarg:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"`--model_kwarg` must be KEY=VALUE; got {item!r}.")
        try:
            keywords[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            keywords[key] = value  # a word, such as padding=symmetric
    if FLAGS.norm_momentum is not None:
        keywords["norm_momentum"] = FLAGS.norm_momentum
    return kvision.create_model(
        FLAGS.model,
        weights=FLAGS.weights,
        input_shape=input_shape,
        num_classes=num_classes,
        classifier_activation=None,
        **keywords,
    )


def open_folder(folder: Path, class_names) -> Path:
    """Makes the run folder, or checks that the one there is of the same run."""
    lines = [flag.serialize() for flag in FLAGS.get_flags_for_module(sys.modules[__name__])]
    text = "\n".join(line for line in lines if line) + "\n"
    if (folder / runs.FLAGS).is_file() and FLAGS.overwrite:
        shutil.rmtree(folder)
    if (folder / runs.FLAGS).is_file():
        there = (folder / runs.FLAGS).read_text()
        differ = sorted(set(there.splitlines()) ^ set(text.splitlines()))
        differ = [
            line
            for line in differ
            if not line.removeprefix("--no").removeprefix("--").startswith(NOT_OF_THE_RUN)
        ]
        if differ:
            raise ValueError(
                f"'{folder}' holds a run with other flags ({', '.join(differ)}); --overwrite starts anew."
            )
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty and no run folder: give another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((runs.LABELS, "\n".join(class_names) + "\n"), (runs.FLAGS, text)):
        beside = folder / f".{name}"
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, folder / name)
    return folder


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
