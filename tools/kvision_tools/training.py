"""A training run, from its configuration to its end."""

import contextlib
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

import kvision
import kvision.data
from kvision import run_info, visualize
from kvision.data.skipped import report_unreadable
from kvision.errors import UserError
from kvision.files import replacing
from kvision.names import counted
from kvision_tools import run_folder, startup
from kvision_tools.callbacks import (
    CURVES,
    EventFiles,
    Progress,
    RunFiles,
    Strict,
    plot_curves,
    print_table,
    write_model,
)
from kvision_tools.config import TrainConfig
from kvision_tools.preparation import Preparation
from kvision_tools.trainer import Trainer

DEBUG_BATCH = "debug_batch.png"
DRAWN = 16  # images at most
SAMPLE = 64  # images in which objects are looked at


@dataclass(frozen=True)
class Trained:
    """Result of a run.

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
        UserError: see `TrainConfig` and `Preparation`; the loss was not finite for once too often.
        OSError: the images cannot be read, or the folder cannot be written.
    """
    if not isinstance(config, TrainConfig):
        raise UserError(f"`config` must be a kvision_tools.TrainConfig; got {type(config).__name__}.")
    policy = keras.config.dtype_policy()
    try:
        with contextlib.closing(Training(Preparation(config))) as training:
            training.open()
            training.train()
    finally:
        keras.config.set_dtype_policy(policy)
    model = keras.saving.load_model(training.folder / run_info.MODEL, compile=False)
    return Trained(training.trainer.history, model, training.folder)


class Training:
    """A run from its preparation to its end.

    Args:
        prepared: what it needs.
    """

    def __init__(self, prepared: Preparation):
        self.prepared, self.config, self.folder = prepared, prepared.config, prepared.folder
        self.lock = None

    def open(self):
        """Makes the run folder, or goes on with the one that is there."""
        prepared = self.prepared
        if prepared.writes:
            self.lock = run_folder.make(self.folder, self.config, prepared.identities, prepared.overwrite)
        if prepared.cluster.addresses[1:]:  # nobody looks for checkpoints before the folder is this run's
            self._sum_over_devices(1.0)
            devices = prepared.strategy.num_replicas_in_sync
            if self._sum_over_devices((self.folder / run_info.FLAGS).is_file()) < devices:
                raise UserError(f"`output` must be a folder that all workers see; got '{self.folder}'.")
        self.trainer = Trainer(
            prepared.loop,
            prepared.batches,
            prepared.distribute("val"),
            steps=prepared.steps,
            epochs=self.config.epochs,
            renewed_at=prepared.plain_step,
            steps_per_loop=self.config.steps_per_loop,
            folder=self.folder / "checkpoints",
            checkpoint_steps=self.config.checkpoint_steps,
            writes=prepared.writes,
            nan_restores=self.config.nan_restores,
            nan_rate_factor=self.config.nan_rate_factor,
            again=self.again,
        )
        if prepared.cluster.addresses[1:]:  # a worker that ends alone would take the others with it
            startup.save_first(self.trainer.ask)

    def close(self):
        """Lets others train in the folder."""
        if self.lock:
            self.lock.close()

    @property
    def again(self) -> str:
        """The command that goes on, which would begin anew with --overwrite."""
        return f"`{shlex.join(['kvision-train', f'--flagfile={self.folder / run_info.FLAGS}'])}`"

    def _sum_over_devices(self, value):
        """The sum of what each worker gives, once for each of its devices; all wait for each other."""

        @tf.function(autograph=False)  # the strategy warns of a collective outside one
        def summed():
            return self.prepared.strategy.run(
                lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.constant(float(value)))
            )

        return float(self.prepared.strategy.experimental_local_results(summed())[0])

    def train(self):
        """Trains to the end and returns the result."""
        prepared = self.prepared
        step, history, monitor = self.trainer.step, self.trainer.history, prepared.loop.task.monitor
        if len(history) >= self.config.epochs:
            epochs = counted(self.config.epochs, "epoch")
            print(f"{self.folder} has all of its {epochs}: nothing is left to train.")
            if prepared.writes and not (self.folder / CURVES).exists():  # it was killed when it drew them
                plot_curves(history, monitor, self.folder / CURVES)
            self._learn_last_stages()
            return
        if step:
            print(f"Going on after step {step} of {self.folder}.")
        if prepared.writes:
            with kvision.data.read_errors(prepared.opened):
                self._look(step)
        # Until the first steps are taken, for which they are traced, there is nothing to save.
        hear = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: startup.save_first(self.trainer.ask)
        )
        callbacks = [hear, *([Strict(lambda: prepared.unreadable)] if self.config.strict else [])]
        if prepared.writes:
            callbacks += [
                EventFiles(self.folder / "tensorboard"),
                RunFiles(self.folder, prepared.loop, history),
                Progress(monitor, self.config.epochs, prepared.steps, step, self.config.batch_size),
            ]
        try:
            with kvision.data.read_errors(prepared.opened):
                self.trainer.fit(callbacks)
        except FloatingPointError as error:
            raise UserError(str(error)) from error
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError):
            if not prepared.cluster.addresses[1:]:
                raise
            print("Another worker was lost; the same command on all goes on.", file=sys.stderr)
            sys.exit(1)
        self._learn_last_stages()
        report_unreadable(prepared.unreadable, strict=False)
        if prepared.writes:
            print_table(history, monitor)
            print(f"Run folder: {self.folder}")

    def _learn_last_stages(self):
        """What the best epoch's model learns after the last epoch, where that is not done yet."""
        prepared, path = self.prepared, self.folder / run_info.MODEL
        task = prepared.loop.task
        learn = task.last_stages(prepared.model) if prepared.writes else None
        if not learn:
            return
        startup.end_at_once("behind the last epoch")
        model = keras.saving.load_model(path, compile=False)
        with kvision.data.read_errors(prepared.opened):
            learned = learn(model, prepared.training_images)
        if learned:
            write_model(model, task, path)
            print(f"Learned the stages behind the last epoch: {path}")

    def _look(self, step):
        """Draws the first batch if that is asked for, and says before the first step what is in doubt."""
        prepared, task = self.prepared, self.prepared.loop.task
        if self.config.debug_batch:
            (batch,) = prepared.sample(min(self.config.batch_size, DRAWN), 1)
            with replacing(self.folder / DEBUG_BATCH) as tmp_path:
                visualize.sheet(task.preview(prepared.model, batch)).save(tmp_path, format="PNG")
            print(f"First batch: {self.folder / DEBUG_BATCH}")
        if not step:
            images = min(prepared.examples, SAMPLE)
            size = min(prepared.part_size, images)
            batches = prepared.sample(size, images // size)  # each image at most once
            for sentence in task.doubts(prepared.model, batches):
                print(sentence, file=sys.stderr)
