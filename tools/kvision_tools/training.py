"""A training run, from its configuration to its end."""

import dataclasses
import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

import kvision
import kvision.data
from kvision import runs
from kvision._choices import SPLITS
from kvision.data.identity import Identity
from kvision.data.skipped import Unreadable
from kvision.data.sources import open_source
from kvision.errors import UserError
from kvision.names import counted
from kvision.tasks import TASKS, Task
from kvision_tools import checkpoints, optimizers, run_folder, startup, strategy, transfer
from kvision_tools.callbacks import CURVES, EventFiles, Progress, RunFiles, Strict, plot_curves, print_table
from kvision_tools.cluster import RESTARTED, find_cluster
from kvision_tools.config import TrainConfig
from kvision_tools.loop import Loop, with_blanks
from kvision_tools.rendezvous import meet
from kvision_tools.trainer import Trainer


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        history: metrics of each epoch, the oldest first.
        model: the best epoch's network with its raw outputs, as in the run folder's model.keras.
        folder: the run folder.
    """

    history: list[dict[str, float]]
    model: keras.Model
    folder: Path


def train(config: TrainConfig) -> Trained:
    """Trains a network and leaves a run folder, or goes on with the run in it, as kvision-train does.

    Keras' dtype policy is as before when it returns; determinism of TensorFlow's operations, once a run asked
    for it, lasts as long as the process.

    Raises:
        UserError: see `TrainConfig` and `Training`; the loss was not finite for once too often.
        OSError: the images cannot be read, or the folder cannot be written.
    """
    if not isinstance(config, TrainConfig):
        raise UserError(f"`config` must be a kvision_tools.TrainConfig; got {type(config).__name__}.")
    policy = keras.config.dtype_policy()
    training = None
    try:
        training = Training(config)
        training.open()
        training.train()
    finally:
        keras.config.set_dtype_policy(policy)
        if training:
            training.close()
    model = keras.saving.load_model(training.folder / runs.MODEL, compile=False)
    return Trained(training.trainer.history, model, training.folder)


class Training:
    """A run: everything that it needs, opened and checked.

    Args:
        config: what is trained, and how.

    Raises:
        UserError: settings that do not fit the network, the data, the devices or what the folder holds.
    """

    def __init__(self, config: TrainConfig):
        self.folder, self.lock = Path(config.folder).expanduser(), None
        kind_of_task = task_of(config)
        self.config = config = completed(config, self.folder)
        size = input_size(config)
        self.image_shape = (size, size, config.channels)
        self.overwrite = config.overwrite
        if RESTARTED in os.environ and run_folder.is_this(self.folder, config):
            self.overwrite = False
        goes_on = run_folder.check(self.folder, config, self.overwrite)
        self.cluster = cluster = find_cluster(config.strategy)
        newest = "" if self.overwrite else checkpoints.newest(self.folder / "checkpoints")
        here = {
            "flags": [*run_folder.flag_lines(config), f"--overwrite={self.overwrite}"],
            "checkpoints": [newest] if newest else [],
        }
        meeting = meet(cluster, here, config.worker_timeout)
        self.writes = cluster.index == 0
        self.strategy = strategy.make_strategy(config.strategy, cluster)
        devices = self.strategy.num_replicas_in_sync
        parts = devices * config.accumulate
        if config.batch_size % parts:
            raise UserError(
                f"`batch_size` must be divisible by {counted(devices, 'device')} times "
                f"`accumulate={config.accumulate}`; got {config.batch_size}."
            )
        if config.jit_compile and (
            devices > len(cluster.addresses) or (devices > 1 and config.sync_batch_norm)
        ):
            raise UserError(
                "`jit_compile` works with one device a worker and without `sync_batch_norm`; for several "
                "GPUs: kvision-launch --workers=N -- kvision-train ..."
            )
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.part_size = config.batch_size // parts
        channels = self.image_shape[2]
        with meeting:  # once more, because TensorFlow, which opens the data, has to know its strategy before
            self.train_data, self.val_data = (
                open_source(
                    config.data,
                    split,
                    channels,
                    config.val_fraction,
                    config.allow_outside,
                    target=kind_of_task.target,
                )
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
        if len(self.class_names) < kind_of_task.fewest_classes:
            raise UserError(
                f"{config.data!r} has {counted(len(self.class_names), 'class')}; {kind_of_task.name} needs "
                f"{kind_of_task.fewest_classes} or more."
            )
        options = {name: getattr(config, name) for name in kind_of_task.options()}
        task = kind_of_task(class_names=self.class_names, **options)
        self.steps = self.train_data.size // config.batch_size
        if not self.steps:
            images = counted(self.train_data.size, "training image")
            raise UserError(f"`batch_size` {config.batch_size} exceeds the {images}.")
        steps, warmup_steps = self.steps * config.epochs, round(self.steps * config.warmup_epochs)
        if warmup_steps >= steps:
            raise UserError(
                f"`warmup_epochs` ({config.warmup_epochs}) must end before the run does, after "
                f"{counted(steps, 'step')}."
            )
        keras.utils.set_random_seed(config.seed)
        keras.config.set_floatx("float32")
        mixed = "" if config.precision == "float32" else "mixed_"
        keras.config.set_dtype_policy(mixed + config.precision)
        with self.strategy.scope():
            self.model = build_model(config, self.image_shape, len(self.class_names))
            transfer.freeze(self.model, config.freeze)
            self.optimizer = optimizers.make_optimizer(
                config.optimizer,
                model=self.model,
                learning_rate=config.peak_learning_rate,
                weight_decay=config.weight_decay,
                steps=steps,
                warmup_steps=warmup_steps,
                layer_decay=config.layer_decay,
            )
        self.loop = Loop(
            self.model,
            self.optimizer,
            self.strategy,
            task,
            accumulate=config.accumulate,
            clip_norm=config.clip_norm,
            ema_decay=config.ema_decay,
            scale_loss=config.precision == "float16",
            sync_batch_norm=config.sync_batch_norm,
            jit_compile=config.jit_compile,
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
                crop=self.config.crop,
                interpolation=self.config.interpolation,
                cache=self.config.cache,
                target=self.loop.task.target,
                exif=self.config.exif,
                max_unreadable=self.config.max_unreadable,
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
                augment=self.config.augment,
                min_crop_area=self.config.min_crop_area,
                seed=self.config.seed + nans,
                start=step * self.config.batch_size,
            )
        )

    def open(self):
        """Makes the run folder, or goes on with the one that is there."""
        if self.writes:
            self.lock = run_folder.make(self.folder, self.config, self.identities, self.overwrite)
        if self.cluster.addresses[1:]:  # nobody looks for checkpoints before the folder is this run's
            self._sum_over_devices(1.0)
            devices = self.strategy.num_replicas_in_sync
            if self._sum_over_devices((self.folder / runs.FLAGS).is_file()) < devices:
                raise UserError(f"`output` must be a folder that all workers see; got '{self.folder}'.")
        self.trainer = Trainer(
            self.loop,
            self.batches,
            self.distribute("val"),
            steps=self.steps,
            epochs=self.config.epochs,
            steps_per_loop=self.config.steps_per_loop,
            folder=self.folder / "checkpoints",
            checkpoint_steps=self.config.checkpoint_steps,
            writes=self.writes,
            nan_restores=self.config.nan_restores,
            nan_rate_factor=self.config.nan_rate_factor,
            again=self.again,
        )
        if self.cluster.addresses[1:]:  # a worker that ends alone would take the others with it
            startup.save_first(self.trainer.ask)

    def close(self):
        """Lets others train in the folder."""
        if self.lock:
            self.lock.close()

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
        step, history, monitor = self.trainer.step, self.trainer.history, self.loop.task.monitor
        if len(history) >= self.config.epochs:
            epochs = counted(self.config.epochs, "epoch")
            print(f"{self.folder} has all of its {epochs}: nothing is left to train.")
            if self.writes and not (self.folder / CURVES).exists():  # it was killed when it drew them
                plot_curves(history, monitor, self.folder / CURVES)
            return
        if step:
            print(f"Going on after step {step} of {self.folder}.")
        # Until the first steps are taken, for which they are traced, there is nothing to save.
        hear = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: startup.save_first(self.trainer.ask)
        )
        callbacks = [hear, *([Strict(lambda: self.unreadable)] if self.config.strict else [])]
        if self.writes:
            callbacks += [
                EventFiles(self.folder / "tensorboard"),
                RunFiles(self.folder, self.loop, history),
                Progress(monitor, self.config.epochs, self.steps, step, self.config.batch_size),
            ]
        try:
            with kvision.data.read_errors(self.opened):
                self.trainer.fit(callbacks)
        except FloatingPointError as error:
            raise UserError(str(error)) from error
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError):
            if not self.cluster.addresses[1:]:
                raise
            print("Another worker was lost; the same command on all goes on.", file=sys.stderr)
            sys.exit(1)
        runs.report_unreadable(self.unreadable, strict=False)
        if self.writes:
            print_table(history, monitor)
            print(f"Run folder: {self.folder}")


def _changed_data(first: dict, other: dict) -> list[str]:
    return Identity.from_json(first).changes(Identity.from_json(other))


def task_of(config: TrainConfig) -> type[Task]:
    """What the network learns.

    Raises:
        UserError: an unknown network, a task that it cannot learn, or settings of another task.
    """
    own = TASKS[kvision.info(config.model).task]
    task = TASKS[config.task or own.name]
    if task.rank != own.rank:
        able = [other.name for other in TASKS.values() if other.rank == own.rank]
        raise UserError(f"`task` of {config.model} must be {' or '.join(able)}; got {task.name}.")
    for other in TASKS.values():
        for option in {*other.options()} - {*task.options()}:
            if getattr(config, option) != getattr(TrainConfig, option):
                raise UserError(f"`{option}` is for {other.name}; {config.model} learns {task.name}.")
    return task


def input_size(config: TrainConfig) -> int:
    """Height and width of the network's input."""
    return config.image_size or kvision.info(config.model).variant.image_size


def completed(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with values for what it leaves open.

    Raises:
        UserError: the folder lies in the data, or the warm-up is longer than the run.
    """
    if runs.is_inside(folder, config.data):
        raise UserError(f"`output` must be outside the folder of `data={config.data}`; got '{folder}'.")
    crop, interpolation = runs.evaluation(
        config.model, config.weights, input_size(config), config.model_kwarg
    )
    warmup = config.warmup_epochs
    if warmup is None:
        there = None if config.overwrite else run_folder.warmup_epochs(folder)
        if there is not None and there >= config.epochs:
            run_folder.check(folder, config, config.overwrite)  # raises, as the run there is longer
        warmup = min(1.0, config.epochs / 2) if there is None else there
    return dataclasses.replace(
        config,
        learning_rate=None if config.learning_rate_per_256 is not None else config.peak_learning_rate,
        crop=config.crop or crop,
        interpolation=config.interpolation or interpolation,
        warmup_epochs=warmup,
    )


def build_model(config: TrainConfig, input_shape, num_classes: int) -> keras.Model:
    """The network with logits."""
    keywords = dict(config.model_kwarg)
    if config.norm_momentum is not None:
        keywords["norm_momentum"] = config.norm_momentum
    try:
        return kvision.create_model(
            config.model,
            weights=config.weights,
            input_shape=input_shape,
            num_classes=num_classes,
            classifier_activation=None,
            allow_nonfinite=config.allow_nonfinite,
            **keywords,
        )
    except (UserError, OSError):
        raise
    except Exception as error:  # Keras checks the values of its layers, each in its way
        if not config.model_kwarg:
            raise
        given = " ".join(config.lines()["model_kwarg"].splitlines())
        raise UserError(f"{config.model} cannot be built with {given}: {str(error)[:300]}") from error
