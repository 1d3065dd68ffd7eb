"""Preparation of a run, opened and checked: settings, devices, data, network, optimizer."""

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import kvision
import kvision.data
from kvision import network_data, opening
from kvision.choices import SPLITS
from kvision.data.identity import Identity
from kvision.data.skipped import Unreadable
from kvision.data.sources import Source, open_source
from kvision.data.transforms import OTHERS
from kvision.errors import UserError
from kvision.names import counted, listed
from kvision.tasks import TASKS, Task
from kvision_tools import checkpoints, optimizers, run_folder, strategy, transfer
from kvision_tools.cluster import RESTARTED, find_cluster
from kvision_tools.config import TrainConfig
from kvision_tools.loop import Loop, with_blanks
from kvision_tools.rendezvous import meet

BACKBONE = "backbone."  # in front of keywords of a backbone's builder
# settings that both splits share
READING = ("crop", "interpolation", "cache", "exif", "max_unreadable", "strict")


class Preparation:
    """A run that can begin, or go on with what its folder holds. Nothing is written.

    Args:
        config: what is trained, and how.

    Attributes:
        config: the same, with values for what it leaves open.
        folder: the run folder.
        overwrite: whether a run in it is replaced.
        cluster: the workers, of which this process is one.
        writes: whether this process is the one that writes.
        strategy: over the devices of all workers.
        image_shape: `(height, width, channels)` of the network's input.
        part_size: number of images that a device takes at once.
        train_data, val_data: the two splits.
        identities: what they are, by the names of the splits.
        opened: the datasets that were read from.
        steps: number of steps in an epoch.
        model: the network, which ends in logits.
        task: what it learns.
        examples: number of examples in an epoch.
        optimizer: of the network.
        loop: what takes the steps.

    Raises:
        UserError: settings that do not fit the network, the data, the devices or what the folder holds.
    """

    def __init__(self, config: TrainConfig):
        kind_of_task = task_of(config)
        self.folder = Path(config.folder).expanduser()
        self.config = config = completed(config, self.folder)
        size = input_size(config)
        self.image_shape = (size, size, config.channels)
        self.overwrite = config.overwrite
        if RESTARTED in os.environ and run_folder.is_this(self.folder, config):
            self.overwrite = False
        goes_on = run_folder.check(self.folder, config, self.overwrite)
        self.cluster = find_cluster(config.strategy)
        self.writes = self.cluster.index == 0
        meeting = self._meet()
        self.strategy = strategy.make_strategy(config.strategy, self.cluster)
        self.part_size = config.batch_size // self._parts()
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        with meeting:  # once more, because TensorFlow, which opens the data, has to know its strategy before
            self._open_data(kind_of_task, meeting)
            if goes_on:
                run_folder.compare(self.folder, self.identities)
        self.opened: list[kvision.data.Data] = []
        options = {name: getattr(config, name) for name in kind_of_task.options()}
        task = kind_of_task(class_names=self.train_data.class_names, **options)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_floatx("float32")
        mixed = "" if config.precision == "float32" else "mixed_"
        keras.config.set_dtype_policy(mixed + config.precision)
        with self.strategy.scope():
            self.model = build_model(config, task, self.train_data, self.image_shape)
            transfer.freeze(self.model, config.freeze)
            self.task = task = task.fitted(self.model)
            self.examples, _ = map(task.examples, (self.train_data, self.val_data))
            self.steps = self.examples // config.batch_size
            warmup_steps = self._warmup_steps()
            self.optimizer = optimizers.make_optimizer(
                config.optimizer,
                model=self.model,
                learning_rate=config.peak_learning_rate,
                weight_decay=config.weight_decay,
                steps=self.steps * config.epochs,
                warmup_steps=warmup_steps,
                schedule=config.schedule,
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

    def _meet(self):
        """The workers' meeting, in which they compared their flags and checkpoints."""
        newest = "" if self.overwrite else checkpoints.newest(self.folder / "checkpoints")
        here = {
            "flags": [*run_folder.flag_lines(self.config), f"--overwrite={self.overwrite}"],
            "checkpoints": [newest] if newest else [],
        }
        return meet(self.cluster, here, self.config.worker_timeout)

    def _parts(self) -> int:
        """The number of parts of a batch, over all devices.

        Raises:
            UserError: the batch has no such parts, or these devices cannot be compiled for.
        """
        config, devices = self.config, self.strategy.num_replicas_in_sync
        parts = devices * config.accumulate
        if config.batch_size % parts:
            raise UserError(
                f"`batch_size` must be divisible by {counted(devices, 'device')} times "
                f"`accumulate={config.accumulate}`; got {config.batch_size}."
            )
        if config.jit_compile and (
            devices > len(self.cluster.addresses) or (devices > 1 and config.sync_batch_norm)
        ):
            raise UserError(
                "`jit_compile` works with one device a worker and without `sync_batch_norm`; for several "
                "GPUs: kvision-launch --workers=N -- kvision-train ..."
            )
        return parts

    def _open_data(self, kind_of_task: type[Task], meeting) -> None:
        """Opens the splits; the workers compare what they have."""
        config = self.config
        self.train_data, self.val_data = (
            open_source(
                config.data,
                split,
                config.channels,
                config.val_fraction,
                config.allow_outside,
                target=kind_of_task.target,
                **{name: getattr(config, name) for name in kind_of_task.opening},
            )
            for split in SPLITS
        )
        self.identities = {"train": self.train_data.identity, "val": self.val_data.identity}
        if self.cluster.addresses[1:]:
            data = {"training images": "train", "validation images": "val"}
            meeting.compare(
                {what: self.identities[split].to_json() for what, split in data.items()}, _changed_data
            )
        names = self.train_data.class_names
        if len(names) < kind_of_task.fewest_classes:
            raise UserError(
                f"{config.data!r} has {counted(len(names), 'class')}, {listed(names)}; {kind_of_task.name} "
                f"needs {kind_of_task.fewest_classes} or more."
            )

    def _warmup_steps(self) -> int:
        """The number of steps of the warm-up.

        Raises:
            UserError: an epoch has no step, or the run ends before the warm-up does.
        """
        config = self.config
        if not self.steps:
            examples = counted(self.examples, f"training {self.task.kind}")
            raise UserError(f"`batch_size` {config.batch_size} exceeds the {examples}.")
        steps, warmup_steps = self.steps * config.epochs, round(self.steps * (config.warmup_epochs or 0))
        if warmup_steps >= steps:
            raise UserError(
                f"`warmup_epochs` ({config.warmup_epochs}) must end before the run does, after "
                f"{counted(steps, 'step')}."
            )
        return warmup_steps

    def distribute(self, split, **keywords):
        """Distributed batches: each device gets a part of its worker's share of the images."""

        def dataset(context):
            shard = context.input_pipeline_id, context.num_input_pipelines
            data = self._load(split, batch_size=self.part_size, shard=shard, **keywords)
            if split == "train":
                return data.dataset
            replicas = self.strategy.num_replicas_in_sync
            each = math.ceil(data.size / (self.part_size * replicas))
            return with_blanks(data.dataset, each * replicas // context.num_input_pipelines)

        return self.strategy.distribute_datasets_from_function(dataset)

    def _load(self, split, **keywords) -> kvision.data.Data:
        """A split, read as both are."""
        data = kvision.data.load(
            self.train_data if split == "train" else self.val_data,
            split,
            image_size=self.image_shape[:2],
            channels=self.image_shape[2],
            **self.task.loading,
            **{name: getattr(self.config, name) for name in READING},
            **keywords,
        )
        self.opened.append(data)
        return data

    @property
    def plain_step(self) -> int:
        """The step from which images are augmented alone."""
        return self.steps * (self.config.epochs - min(self.config.plain_epochs, self.config.epochs))

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """The files that failed to decode so far, by name."""
        return {name: file for data in self.opened for name, file in data.unreadable.items()}

    def batches(self, step, nans):
        """Training batches from a step on; others after each NaN."""
        return iter(self.distribute("train", **self._training(step, nans)))

    def sample(self, batch_size: int, count: int) -> Iterator[dict]:
        """The first training batches as arrays, `count` of them."""
        data = self._load("train", batch_size=batch_size, **self._training(0, 0))
        yield from data.dataset.take(count).as_numpy_iterator()  # pyright: ignore  # its stubs know no dicts

    def training_images(self) -> Iterable[dict]:
        """Batches of all training images, as validation has its own; in each worker all."""
        return self._load("train", batch_size=self.part_size).dataset

    def _training(self, step, nans) -> dict:
        """How training images are loaded from a step on."""
        return {
            "training": True,
            "augment": self.config.augment if step < self.plain_step else "flip",
            "min_crop_area": self.config.min_crop_area,
            "seed": self.config.seed + nans,
            "start": step * self.config.batch_size,
        }


def _changed_data(first: dict, other: dict) -> list[str]:
    return Identity.from_json(first).changes(Identity.from_json(other))


def task_of(config: TrainConfig) -> type[Task]:
    """The task that the network learns.

    Raises:
        UserError: an unknown network, a task that it cannot learn, or settings of another task.
    """
    own = TASKS[kvision.info(config.model).task]
    task = TASKS[config.task or own.name]
    able = [other.name for other in TASKS.values() if own.name in (other.name, other.learner)]
    if task.name not in able:
        raise UserError(f"`task` of {config.model} must be {' or '.join(able)}; got {task.name}.")
    if (task.own_size or not task.images) and config.crop not in (None, 1.0):
        sees = "whole ones" if task.images else "none"
        raise UserError(f"`crop` is for networks that classify images; {config.model} sees {sees}.")
    for name in task.refused:
        if getattr(config, name) != getattr(TrainConfig, name):
            raise UserError(f"`{name}` is not for {task.targets}, which {config.model} learns.")
    if config.augment in OTHERS and task.target != "boxes":
        raise UserError(f"`augment={config.augment}` needs boxes; {config.model} learns {task.targets}.")
    for other in TASKS.values():
        for option in other.settings() - task.settings():
            if getattr(config, option) != getattr(TrainConfig, option):
                raise UserError(f"`{option}` is for {other.name}; {config.model} learns {task.name}.")
    return task


def input_size(config: TrainConfig) -> int:
    """Height and width of the images that the network sees; 0 where it sees none."""
    info = kvision.info(config.model)
    if not TASKS[info.task].images:
        return 0
    return config.image_size or info.variant.image_size


def completed(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with values for what it leaves open.

    Raises:
        UserError: the folder lies in the data, or the warm-up is longer than the run.
    """
    if network_data.is_inside(folder, config.data):
        raise UserError(f"`output` must be outside the folder of `data={config.data}`; got '{folder}'.")
    crop, interpolation = opening.evaluation(
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


def build_model(config: TrainConfig, task: Task, source: Source, image_shape: tuple) -> keras.Model:
    """The network to train."""
    row: Any = kvision.info(config.model).variant
    own, of_backbone = {}, {}
    for key, value in config.model_kwarg.items():
        (of_backbone if key.startswith(BACKBONE) else own)[key.removeprefix(BACKBONE)] = value
    if config.norm_momentum is not None:
        has_norms = "norm_momentum" in row.columns() or not hasattr(row, "backbone")
        (own if has_norms else of_backbone)["norm_momentum"] = config.norm_momentum
    row = dataclasses.replace(row, **{key: value for key, value in own.items() if key in row.columns()})
    keywords = {**task.building, **task.network_keywords(row, source, image_shape, config.length), **own}
    if task.images:
        keywords |= {"weights": config.weights, "allow_nonfinite": config.allow_nonfinite}
    if of_backbone and not hasattr(row, "backbone"):
        raise UserError(
            f"`model_kwarg={BACKBONE}KEY` is for networks on a backbone; {config.model} has none."
        )
    try:
        if of_backbone:
            keywords["backbone"] = kvision.create_model(
                keywords.get("backbone", row.backbone),
                include_top=False,
                weights=keywords.pop("backbone_weights", None),
                input_shape=image_shape,
                **of_backbone,
            )
        return kvision.create_model(config.model, **keywords)
    except (UserError, OSError):
        raise
    except Exception as error:  # Keras checks the values of its layers, each in its way
        if not config.model_kwarg:
            raise
        given = " ".join(config.lines()["model_kwarg"].splitlines())
        raise UserError(f"{config.model} cannot be built with {given}: {str(error)[:300]}") from error
