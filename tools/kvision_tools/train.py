"""kvision-train: trains a network on a dataset and leaves a run folder.

    kvision-train --model=mobilenet_v2 --data=digits --image_size=64 --epochs=10 --output=runs/digits

The folder holds flags.txt (repeat with --flagfile), metrics.csv, TensorBoard events, curves.png, model.keras
(the best on validation, with logits as its output), labels.txt and checkpoints. The same command on the same
folder goes on after the last checkpoint. SIGTERM saves one and ends the command with exit code 75.
"""

import ast
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags

import kvision
import kvision.data
from kvision import _cli, runs
from kvision.data.images import INTERPOLATIONS
from kvision.data.load import AUGMENTATIONS, CACHES
from kvision.data.sources import FORMS
from kvision_tools import checkpoints, optimizers, strategy, transfer
from kvision_tools.callbacks import Progress, RunFiles, Strict, print_table
from kvision_tools.dry_run import dry_run
from kvision_tools.loop import Loop, with_blanks
from kvision_tools.rendezvous import meet
from kvision_tools.trainer import REQUEUE, Trainer

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A name that kvision-info lists.", required=True)
flags.DEFINE_multi_string(
    "model_kwarg", [], "KEY=VALUE of the builder, repeatable: --model_kwarg=width_multiplier=0.35"
)
flags.DEFINE_string("weights", None, f"To start from: {runs.WEIGHTS}.")
flags.DEFINE_string("freeze", "none", "none, trunk (all but the top), or N: the first N groups by depth.")
flags.DEFINE_string("data", None, f"{FORMS}.", required=True)
flags.DEFINE_float("val_fraction", 0.2, "Share held out where the dataset has no split of its own.")
flags.DEFINE_bool("strict", False, "End the run at a file that is no image.")
flags.DEFINE_enum("cache", "none", CACHES, "Decoded images in memory, or encoded ones in ~/.cache/kvision.")
flags.DEFINE_integer("image_size", None, "Height and width in pixels; the network's own by default.", 1)
flags.DEFINE_integer("channels", 3, "3 for RGB, 1 for grey.")
flags.DEFINE_enum("augment", "none", AUGMENTATIONS, "Random boxes of the training images, mirrored too.")
flags.DEFINE_float("min_crop_area", 0.08, "Smallest share of an image that --augment cuts out.")
flags.DEFINE_float("crop", None, "Share of the resized side that is evaluated; the weights' own, or 1.", 0, 1)
flags.DEFINE_enum("interpolation", None, INTERPOLATIONS, "Before --crop; the weights' own, or bilinear.")
flags.DEFINE_integer("epochs", 10, "Passes over the training images.", 1)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices and workers.", 1)
flags.DEFINE_integer("accumulate", 1, "Parts of a batch that pass one after the other, to save memory.", 1)
flags.DEFINE_enum("optimizer", "sgd", optimizers.NAMES, "Its settings: kvision_tools/optimizers.py.")
flags.DEFINE_float("learning_rate", None, "At its peak; 0.05 by default.", 0)
flags.DEFINE_float("learning_rate_per_256", None, "Instead: for each 256 images of a batch.", 0)
flags.DEFINE_float("warmup_epochs", 1.0, "Of linear growth, before the cosine.", 0)
flags.DEFINE_float("weight_decay", 0.0, "Decoupled; spares norms and biases.", 0)
flags.DEFINE_float("layer_decay", 1.0, "Of the learning rate, for each group of layers behind.", 0, 1)
flags.DEFINE_float("clip_norm", None, "Largest norm of all gradients together.", 0)
flags.DEFINE_float("label_smoothing", 0.0, "Share of the label spread over all classes.", 0, 1)
flags.DEFINE_float("norm_momentum", None, "Of the batch norms; a short run needs 0.9.", 0, 1)
flags.DEFINE_bool("sync_batch_norm", False, "Batch norms see the images of all devices and workers.")
flags.DEFINE_float("ema_decay", None, "Of a moving average of the weights, evaluated beside them.", 0, 1)
flags.DEFINE_enum(
    "precision", "float32", ("float32", "bfloat16", "float16"), "Of arithmetic, not of weights."
)
flags.DEFINE_bool("jit_compile", False, "Forward and backward pass by XLA.")
flags.DEFINE_bool("deterministic", False, "The same run gives the same bits; slower on GPUs.")
flags.DEFINE_enum("strategy", "auto", strategy.NAMES, "Which devices share a step.")
flags.DEFINE_float("worker_timeout", 300.0, "Seconds to wait for other workers.", 0)
flags.DEFINE_integer(
    "steps_per_loop", 10, "Steps in one call of the device, after which metrics are read.", 1
)
flags.DEFINE_integer("checkpoint_steps", None, "Between checkpoints; there is one after each epoch too.", 1)
flags.DEFINE_integer(
    "nan_restores", 3, "How often to go back to a checkpoint when the loss is not finite.", 0
)
flags.DEFINE_float("nan_rate_factor", 1.0, "Of the learning rate, each time.", 0, 1)
flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.", 0)
flags.DEFINE_string("output", None, "The run folder; runs/MODEL by default.")
flags.DEFINE_bool("overwrite", False, "Start anew in a folder that holds another run.")
flags.DEFINE_bool("dry_run", False, "Say what would be trained, and its memory and time; write nothing.")

NOT_OF_THE_RUN = ("output", "overwrite", "dry_run", "worker_timeout")  # what may differ when a run goes on
LEARNING_RATE = 0.05


def main(positional):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(REQUEUE))  # until the trainer takes over
    with _cli.user_errors():
        if positional:
            raise ValueError(f"Unexpected argument {positional[0]!r}: options begin with --.")
        run = Run()
        if FLAGS.dry_run:
            dry_run(run)
            return
        run.open()
    run.train()


class Run:
    """Everything of a run, opened and checked from the flags."""

    def __init__(self):
        check_flags()
        size = FLAGS.image_size or kvision.info(FLAGS.model).variant.image_size
        self.image_shape = (size, size, FLAGS.channels)
        crop, interpolation = runs.evaluation(FLAGS.model, FLAGS.weights, size)
        FLAGS.crop = FLAGS.crop or crop
        FLAGS.interpolation = FLAGS.interpolation or interpolation
        self.folder = Path(FLAGS.output or f"runs/{FLAGS.model}")
        check_folder(self.folder)
        self.cluster = cluster = strategy.find_cluster(FLAGS.strategy)
        if len(cluster.addresses) > 1:
            newest = "" if FLAGS.overwrite else checkpoints.newest(self.folder / "checkpoints")
            here = {"flags": flag_lines(), "checkpoints": [newest]}
            meet(cluster, here, FLAGS.worker_timeout)
        self.writes = cluster.index == 0
        self.strategy = strategy.make_strategy(FLAGS.strategy, cluster)
        devices = self.strategy.num_replicas_in_sync
        parts = devices * FLAGS.accumulate
        if FLAGS.batch_size % parts:
            raise ValueError(
                f"`--batch_size` must be divisible by the {devices} devices times "
                f"--accumulate={FLAGS.accumulate}; got {FLAGS.batch_size}."
            )
        if FLAGS.jit_compile and (
            devices > len(cluster.addresses) or (devices > 1 and FLAGS.sync_batch_norm)
        ):
            raise ValueError(
                "`--jit_compile` works with one device a worker and without --sync_batch_norm; for several "
                "GPUs: kvision-launch --workers=N -- kvision-train ..."
            )
        if FLAGS.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.part_size = FLAGS.batch_size // parts
        self.val_data = self.load("val")
        self.train_data = self.load("train")
        self.opened: list[kvision.data.Data] = []  # what is read from
        self.class_names = self.train_data.class_names
        if len(self.class_names) < 2:
            raise ValueError(f"{FLAGS.data!r} has one class; at least two were expected.")
        self.steps = self.train_data.size // FLAGS.batch_size
        if not self.steps:
            raise ValueError(
                f"`--batch_size` {FLAGS.batch_size} exceeds the {self.train_data.size} training images."
            )
        keras.utils.set_random_seed(FLAGS.seed)
        mixed = "" if FLAGS.precision == "float32" else "mixed_"
        keras.config.set_dtype_policy(mixed + FLAGS.precision)
        with self.strategy.scope():
            self.model = build_model(self.image_shape, len(self.class_names))
            transfer.freeze(self.model, FLAGS.freeze)
            self.optimizer = optimizers.make_optimizer(
                FLAGS.optimizer,
                model=self.model,
                learning_rate=learning_rate(),
                weight_decay=FLAGS.weight_decay,
                steps=self.steps * FLAGS.epochs,
                warmup_steps=round(self.steps * FLAGS.warmup_epochs),
                layer_decay=FLAGS.layer_decay,
            )
        self.loop = Loop(
            self.model,
            self.optimizer,
            self.strategy,
            label_smoothing=FLAGS.label_smoothing,
            accumulate=FLAGS.accumulate,
            clip_norm=FLAGS.clip_norm,
            ema_decay=FLAGS.ema_decay,
            scale_loss=FLAGS.precision == "float16",
            sync_batch_norm=FLAGS.sync_batch_norm,
            jit_compile=FLAGS.jit_compile,
        )

    def load(self, split, **keywords) -> kvision.data.Data:
        return kvision.data.load(
            FLAGS.data,
            split,
            image_size=self.image_shape[:2],
            channels=self.image_shape[2],
            batch_size=self.part_size,
            val_fraction=FLAGS.val_fraction,
            crop=FLAGS.crop,
            interpolation=FLAGS.interpolation,
            cache=FLAGS.cache,
            **keywords,
        )

    def distribute(self, split, **keywords):
        """Distributed batches: each device gets a part of its worker's share of the images."""

        def dataset(context):
            shard = context.input_pipeline_id, context.num_input_pipelines
            data = self.load(split, shard=shard, **keywords)
            self.opened.append(data)
            if split == "train":
                return data.dataset
            replicas = self.strategy.num_replicas_in_sync
            each = math.ceil(data.size / (self.part_size * replicas))
            return with_blanks(data.dataset, each * replicas // context.num_input_pipelines)

        return self.strategy.distribute_datasets_from_function(dataset)

    @property
    def unreadable(self) -> list[str]:
        """The names of the files that were no images so far."""
        return sorted({name for data in self.opened for name in data.unreadable})

    def batches(self, step, nans):
        """Training batches from a step on; others after each NaN."""
        return iter(
            self.distribute(
                "train",
                training=True,
                augment=FLAGS.augment,
                min_crop_area=FLAGS.min_crop_area,
                seed=FLAGS.seed + nans,
                start=step * FLAGS.batch_size,
            )
        )

    def open(self):
        """Makes the run folder, or goes on with the one that is there."""
        if self.writes:
            open_folder(self.folder, self.class_names)
        if self.cluster.addresses[1:]:  # nobody looks for checkpoints before the folder is this run's
            self.strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.ones(())))
        self.trainer = Trainer(
            self.loop,
            self.batches,
            self.distribute("val"),
            steps=self.steps,
            epochs=FLAGS.epochs,
            steps_per_loop=FLAGS.steps_per_loop,
            folder=self.folder / "checkpoints",
            checkpoint_steps=FLAGS.checkpoint_steps,
            writes=self.writes,
            nan_restores=FLAGS.nan_restores,
            nan_rate_factor=FLAGS.nan_rate_factor,
        )

    def train(self):
        """Trains to the end and says what came of it."""
        step, history = self.trainer.step, self.trainer.history
        if len(history) >= FLAGS.epochs:
            print(f"{self.folder} has all of its {FLAGS.epochs} epochs; --overwrite starts anew.")
            return
        if step:
            print(f"Going on after step {step} of {self.folder}.")
        callbacks = [Strict(lambda: self.unreadable)] if FLAGS.strict else []
        if self.writes:
            callbacks += [
                keras.callbacks.TensorBoard(self.folder / "tensorboard", write_graph=False),
                RunFiles(self.folder, self.loop, history),
                Progress(FLAGS.epochs, self.steps, step, FLAGS.batch_size),
            ]
        try:
            self.trainer.fit(callbacks)
        except FloatingPointError as error:
            _cli.fail(error)
        runs.report_unreadable(self.unreadable, strict=False)
        if self.writes:
            print_table(history)
            print(f"Run folder: {self.folder}")


def check_flags():
    """A ValueError for flags outside their range, or that contradict each other."""
    if strategy.RESTARTED in os.environ:
        FLAGS.overwrite = False
    for name in ("learning_rate", "learning_rate_per_256", "layer_decay", "clip_norm", "nan_rate_factor"):
        if FLAGS[name].value is not None and FLAGS[name].value <= 0:
            raise ValueError(f"`--{name}` must be positive; got {FLAGS[name].value}.")
    if FLAGS.ema_decay is not None and not 0 < FLAGS.ema_decay < 1:
        raise ValueError(f"`--ema_decay` must be between 0 and 1; got {FLAGS.ema_decay}.")
    if FLAGS.learning_rate is not None and FLAGS.learning_rate_per_256 is not None:
        raise ValueError("`--learning_rate` and `--learning_rate_per_256` exclude each other: give one.")
    if FLAGS.warmup_epochs >= FLAGS.epochs:
        raise ValueError(
            f"`--warmup_epochs` ({FLAGS.warmup_epochs}) must be below --epochs ({FLAGS.epochs})."
        )
    if FLAGS["min_crop_area"].present and FLAGS.augment == "none":
        raise ValueError("`--min_crop_area` needs --augment=crop or crop_flip, which cut the boxes.")


def learning_rate() -> float:
    """The learning rate of the flags at its peak."""
    if FLAGS.learning_rate_per_256 is not None:
        return FLAGS.learning_rate_per_256 * FLAGS.batch_size / 256
    return LEARNING_RATE if FLAGS.learning_rate is None else FLAGS.learning_rate


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


def flag_lines() -> list[str]:
    """The flags of this run, as in flags.txt."""
    serialized = [flag.serialize() for flag in FLAGS.get_flags_for_module(sys.modules[__name__])]
    lines = "\n".join(serialized).splitlines()  # a repeated flag has several
    return [line for line in lines if line and not _name(line).startswith(NOT_OF_THE_RUN)]


def _name(line) -> str:
    return line.removeprefix("--no").removeprefix("--")


def check_folder(folder: Path) -> None:
    """A ValueError for a folder that holds something else than this run."""
    if (folder / runs.FLAGS).is_file():
        there = (folder / runs.FLAGS).read_text().splitlines()
        there = {line for line in there if not _name(line).startswith(NOT_OF_THE_RUN)}
        if (differ := sorted(there ^ set(flag_lines()))) and not FLAGS.overwrite:
            raise ValueError(
                f"'{folder}' holds a run with other flags ({', '.join(differ)}); --overwrite starts anew."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty and no run folder: give another --output.")


def open_folder(folder: Path, class_names) -> None:
    """Makes the run folder; with --overwrite, instead of the run that is there."""
    if (folder / runs.FLAGS).is_file():
        if not FLAGS.overwrite:
            return
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*flag_lines(), f"--output={folder}"]) + "\n"
    for name, content in ((runs.LABELS, "\n".join(class_names) + "\n"), (runs.FLAGS, text)):
        beside = folder / f".{name}"
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, folder / name)


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
