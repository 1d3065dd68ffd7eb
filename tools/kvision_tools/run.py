"""A training run from the flags of `train.py`."""

import ast
import math
import os
import shlex
import sys
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags

import kvision
import kvision.data
from kvision import _cli, runs
from kvision._choices import SPLITS
from kvision.data.identity import Identity
from kvision.data.skipped import Unreadable
from kvision.data.sources import open_source
from kvision.errors import UserError
from kvision.names import counted
from kvision_tools import checkpoints, optimizers, run_folder, startup, strategy, transfer
from kvision_tools.callbacks import CURVES, EventFiles, Progress, RunFiles, Strict, plot_curves, print_table
from kvision_tools.choices import LEARNING_RATES
from kvision_tools.cluster import RESTARTED, find_cluster
from kvision_tools.loop import Loop, with_blanks
from kvision_tools.rendezvous import meet
from kvision_tools.trainer import Trainer

FLAGS = flags.FLAGS
OF_THE_DATA = {  # keywords of a builder that --model_kwarg does not set
    "num_classes": "the dataset has them",
    "input_shape": "--image_size and --channels say it",
    "weights": "--weights says it",
    "classifier_activation": "training needs logits",
    "include_top": "training needs a classifier",
    "pooling": "training needs a classifier",
    "preprocess": "--weights brings it",
}


class Run:
    """Everything of a run, opened and checked from the flags."""

    def __init__(self):
        self.folder = Path(FLAGS.output or f"runs/{FLAGS.model}").expanduser()
        check_flags(self.folder)
        size = FLAGS.image_size or kvision.info(FLAGS.model).variant.image_size
        self.image_shape = (size, size, FLAGS.channels)
        crop, interpolation = runs.evaluation(FLAGS.model, FLAGS.weights, size)
        FLAGS.crop = FLAGS.crop or crop
        FLAGS.interpolation = FLAGS.interpolation or interpolation
        if RESTARTED in os.environ and run_folder.is_this(self.folder):
            FLAGS.overwrite = False
        goes_on = run_folder.check(self.folder, FLAGS.overwrite)
        self.cluster = cluster = find_cluster(FLAGS.strategy)
        newest = "" if FLAGS.overwrite else checkpoints.newest(self.folder / "checkpoints")
        here = {
            "flags": [*run_folder.flag_lines(), FLAGS["overwrite"].serialize()],
            "checkpoints": [newest] if newest else [],
        }
        meeting = meet(cluster, here, FLAGS.worker_timeout)
        self.writes = cluster.index == 0
        self.strategy = strategy.make_strategy(FLAGS.strategy, cluster)
        devices = self.strategy.num_replicas_in_sync
        parts = devices * FLAGS.accumulate
        if FLAGS.batch_size % parts:
            raise UserError(
                f"`--batch_size` must be divisible by {counted(devices, 'device')} times "
                f"--accumulate={FLAGS.accumulate}; got {FLAGS.batch_size}."
            )
        if FLAGS.jit_compile and (
            devices > len(cluster.addresses) or (devices > 1 and FLAGS.sync_batch_norm)
        ):
            raise UserError(
                "`--jit_compile` works with one device a worker and without --sync_batch_norm; for several "
                "GPUs: kvision-launch --workers=N -- kvision-train ..."
            )
        if FLAGS.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.part_size = FLAGS.batch_size // parts
        channels = self.image_shape[2]
        with meeting:  # once more, because TensorFlow, which opens the data, has to know its strategy before
            self.train_data, self.val_data = (
                open_source(FLAGS.data, split, channels, FLAGS.val_fraction, FLAGS.allow_outside)
                for split in SPLITS
            )
            self.identities = {"train": self.train_data.identity, "val": self.val_data.identity}
            if cluster.addresses[1:]:
                data = {"training images": "train", "validation images": "val"}
                meeting.compare(
                    {what: self.identities[s].to_json() for what, s in data.items()}, _changed_data
                )
            if goes_on:
                run_folder.compare(self.folder, self.identities)
        self.opened: list[kvision.data.Data] = []  # what is read from
        self.class_names = self.train_data.class_names
        if len(self.class_names) < 2:
            raise UserError(f"{FLAGS.data!r} has one class; at least two were expected.")
        self.steps = self.train_data.size // FLAGS.batch_size
        if not self.steps:
            images = counted(self.train_data.size, "training image")
            raise UserError(f"`--batch_size` {FLAGS.batch_size} exceeds the {images}.")
        steps, warmup_steps = self.steps * FLAGS.epochs, round(self.steps * FLAGS.warmup_epochs)
        if warmup_steps >= steps:
            raise UserError(
                f"`--warmup_epochs` ({FLAGS.warmup_epochs}) must end before the run does, after "
                f"{counted(steps, 'step')}."
            )
        keras.utils.set_random_seed(FLAGS.seed)
        keras.config.set_floatx("float32")
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
                steps=steps,
                warmup_steps=warmup_steps,
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

    def distribute(self, split, **keywords):
        """Distributed batches: each device gets a part of its worker's share of the images."""

        def dataset(context):
            shard = context.input_pipeline_id, context.num_input_pipelines
            data = kvision.data.load(
                self.train_data if split == "train" else self.val_data,
                split,
                image_size=self.image_shape[:2],
                channels=self.image_shape[2],
                batch_size=self.part_size,
                crop=FLAGS.crop,
                interpolation=FLAGS.interpolation,
                cache=FLAGS.cache,
                exif=FLAGS.exif,
                max_unreadable=FLAGS.max_unreadable,
                shard=shard,
                **keywords,
            )
            self.opened.append(data)
            if split == "train":
                return data.dataset
            replicas = self.strategy.num_replicas_in_sync
            each = math.ceil(data.size / (self.part_size * replicas))
            return with_blanks(data.dataset, each * replicas // context.num_input_pipelines)

        return self.strategy.distribute_datasets_from_function(dataset)

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """The files that failed to decode so far, by name."""
        return {name: file for data in self.opened for name, file in data.unreadable.items()}

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
            self.lock = run_folder.make(self.folder, self.identities, FLAGS.overwrite)
        if self.cluster.addresses[1:]:  # nobody looks for checkpoints before the folder is this run's
            self._sum_over_devices(1.0)
            devices = self.strategy.num_replicas_in_sync
            if self._sum_over_devices((self.folder / runs.FLAGS).is_file()) < devices:
                raise UserError(f"`--output` must be a folder that all workers see; got '{self.folder}'.")
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
            again=self.again,
        )
        if self.cluster.addresses[1:]:  # a worker that ends alone would take the others with it
            startup.save_first(self.trainer.ask)

    @property
    def again(self) -> str:
        """The command that goes on, which would begin anew with --overwrite."""
        return f"`{shlex.join(['kvision-train', f'--flagfile={self.folder / runs.FLAGS}'])}`"

    def _sum_over_devices(self, value):
        """The sum of what each worker gives, once for each of its devices; all wait for each other."""

        @tf.function(autograph=False)  # the strategy warns of a collective outside one
        def summed():
            return self.strategy.run(
                lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.constant(float(value)))
            )

        return float(self.strategy.experimental_local_results(summed())[0])

    def train(self):
        """Trains to the end and says what came of it."""
        step, history = self.trainer.step, self.trainer.history
        if len(history) >= FLAGS.epochs:
            print(f"{self.folder} has all of its {counted(FLAGS.epochs, 'epoch')}; --overwrite starts anew.")
            if self.writes and not (self.folder / CURVES).exists():  # it was killed when it drew them
                plot_curves(history, self.folder / CURVES)
            return
        if step:
            print(f"Going on after step {step} of {self.folder}.")
        # Until the first steps are taken, for which they are traced, there is nothing to save.
        hear = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: startup.save_first(self.trainer.ask)
        )
        callbacks = [hear, *([Strict(lambda: self.unreadable)] if FLAGS.strict else [])]
        if self.writes:
            callbacks += [
                EventFiles(self.folder / "tensorboard"),
                RunFiles(self.folder, self.loop, history, self.class_names),
                Progress(FLAGS.epochs, self.steps, step, FLAGS.batch_size),
            ]
        try:
            with kvision.data.read_errors(self.opened):
                self.trainer.fit(callbacks)
        except FloatingPointError as error:
            _cli.fail(error)
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError):
            if not self.cluster.addresses[1:]:
                raise
            print("Another worker was lost; the same command on all goes on.", file=sys.stderr)
            sys.exit(1)
        runs.report_unreadable(self.unreadable, strict=False)
        if self.writes:
            print_table(history)
            print(f"Run folder: {self.folder}")


def _changed_data(first: dict, other: dict) -> list[str]:
    return Identity.from_json(first).changes(Identity.from_json(other))


def check_flags(folder):
    """A ValueError for flags outside their range, or that contradict each other; it names them all."""
    chosen = FLAGS.warmup_epochs is not None
    if not chosen:
        there = None if FLAGS.overwrite else run_folder.warmup_epochs(folder)
        FLAGS.warmup_epochs = min(1.0, FLAGS.epochs / 2) if there is None else there
    mistakes = []
    if FLAGS.output == "":
        mistakes.append("`--output` must be a folder; got ''.")
    positive = ("crop", "min_crop_area", "learning_rate", "learning_rate_per_256", "layer_decay", "clip_norm",
                "nan_rate_factor")  # fmt: skip
    for name in positive:
        if FLAGS[name].value is not None and FLAGS[name].value <= 0:
            mistakes.append(f"`--{name}` must be positive; got {FLAGS[name].value}.")
    if FLAGS.ema_decay is not None and not 0 < FLAGS.ema_decay < 1:
        mistakes.append(f"`--ema_decay` must be between 0 and 1; got {FLAGS.ema_decay}.")
    if FLAGS.learning_rate is not None and FLAGS.learning_rate_per_256 is not None:
        mistakes.append("`--learning_rate` and `--learning_rate_per_256` exclude each other: give one.")
    if FLAGS.warmup_epochs >= FLAGS.epochs and chosen:  # else it is a longer run's, which is refused
        mistakes.append(f"`--warmup_epochs` ({FLAGS.warmup_epochs}) must be below --epochs ({FLAGS.epochs}).")
    if FLAGS.min_crop_area != FLAGS["min_crop_area"].default and FLAGS.augment == "none":
        mistakes.append("`--min_crop_area` needs --augment=crop or crop_flip, which cut the boxes.")
    if runs.is_inside(folder, FLAGS.data):
        mistakes.append(f"`--output` must be outside the folder of --data={FLAGS.data}; got '{folder}'.")
    if mistakes:
        raise UserError(" ".join(mistakes))


def learning_rate() -> float:
    """The learning rate of the flags at its peak."""
    if FLAGS.learning_rate_per_256 is not None:
        return FLAGS.learning_rate_per_256 * FLAGS.batch_size / 256
    return LEARNING_RATES[FLAGS.optimizer] if FLAGS.learning_rate is None else FLAGS.learning_rate


def build_model(input_shape, num_classes) -> keras.Model:
    """The network of the flags, with logits."""
    keywords = {}
    for item in FLAGS.model_kwarg:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"`--model_kwarg` must be KEY=VALUE; got {item!r}.")
        if key in OF_THE_DATA:
            raise UserError(f"`--model_kwarg` does not set {key}: {OF_THE_DATA[key]}.")
        if key == "norm_momentum" and FLAGS.norm_momentum is not None:
            raise UserError("`--norm_momentum` and --model_kwarg=norm_momentum exclude each other: give one.")
        try:
            keywords[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            keywords[key] = value  # a word, such as padding=symmetric
    if FLAGS.norm_momentum is not None:
        keywords["norm_momentum"] = FLAGS.norm_momentum
    try:
        return kvision.create_model(
            FLAGS.model,
            weights=FLAGS.weights,
            input_shape=input_shape,
            num_classes=num_classes,
            classifier_activation=None,
            allow_nonfinite=FLAGS.allow_nonfinite,
            **keywords,
        )
    except (UserError, OSError):
        raise
    except Exception as error:  # Keras checks the values of its layers, each in its way
        if not FLAGS.model_kwarg:
            raise
        raise UserError(
            f"{FLAGS.model} cannot be built with {' '.join(FLAGS.model_kwarg)}: {str(error)[:300]}"
        ) from error
