"""Epochs around a `Loop`: Keras callbacks, validation, checkpoints, and going on after a kill or a NaN."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kvision.errors import UserError
from kvision.keras_internals import scale_learning_rate
from kvision.names import counted
from kvision.tasks import add
from kvision_tools import checkpoints
from kvision_tools.loop import Loop
from kvision_tools.startup import REQUEUE


class Trainer:
    """Trains for a number of epochs, from where the checkpoints of a folder end.

    Args:
        loop: loop that takes the steps.
        batches: function from a step and the number of NaN losses so far to endless distributed batches.
        validation: distributed batches for `Loop.evaluate`.
        steps: number of steps in an epoch.
        epochs: number of epochs in all.
        renewed_at: a step at the beginning of an epoch from which `batches` gives others.
        steps_per_loop: number of steps in one call of the device, after which metrics are read and callbacks
            called.
        folder: folder of the checkpoints; None for none.
        checkpoint_steps: number of steps between checkpoints; there is one after each epoch too.
        writes: whether this process writes checkpoints, or another worker.
        nan_restores: largest number of times that training goes back to the last checkpoint after a loss that
            is not finite, and takes other images from there on.
        nan_rate_factor: factor on the learning rate each time.
        again: name in messages of the command that goes on.

    Raises:
        ValueError: none of the folder's checkpoints is good, or the weights to begin with hold NaN.

    Attributes:
        step: number of steps so far.
        history: metrics of the epochs so far, one dict each.
    """

    def __init__(
        self,
        loop: Loop,
        batches: Callable[[int, int], Iterator],
        validation: Iterable,
        *,
        steps: int,
        epochs: int,
        renewed_at: int = 0,
        steps_per_loop: int = 10,
        folder: Path | None = None,
        checkpoint_steps: int | None = None,
        writes: bool = True,
        nan_restores: int = 3,
        nan_rate_factor: float = 1.0,
        again: str = "the same command",
    ):
        self.loop, self.model, self.optimizer = loop, loop.model, loop.optimizer
        self.make_batches, self.validation = batches, validation
        self.steps, self.epochs, self.steps_per_loop = steps, epochs, steps_per_loop
        self.renewed_at = renewed_at
        self.folder, self.checkpoint_steps, self.writes = folder, checkpoint_steps or steps, writes
        self.nan_restores, self.nan_rate_factor = nan_restores, nan_rate_factor
        self.again, self.asked = again, ""  # the name of the signal that asks for an end
        self.step, self.history, self.nans = 0, [], 0
        self.totals, self.seconds = {}, 0.0  # sums and training time of the epoch so far
        self.rate_factor = tf.Variable(tf.constant(1.0), trainable=False)
        scale_learning_rate(self.optimizer, self.rate_factor)
        self.model.compile(optimizer=self.optimizer)  # callbacks look for it there
        self.model.stop_training = False
        if not self._restore():
            if name := checkpoints.not_finite(loop):
                raise UserError(f"{name} is not finite before the first step: other weights are needed.")
            self._save()  # so that there is something to go back to

    def fit(self, callbacks: Iterable[keras.callbacks.Callback] = ()) -> list[dict]:
        """Trains to the end and returns the history.

        Callbacks are called as `Model.fit` calls them, but after `steps_per_loop` batches at once.

        Raises:
            SystemExit: `ask` was called; the checkpoint is saved, and the code is `REQUEUE`.
            FloatingPointError: the loss was not finite for once too often.
            OSError: the disk is full, or the like; the last checkpoint is still good.
            ValueError: an epoch or its validation would have no image.
        """
        callback_list = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self._make_batches()
        callback_list.on_train_begin()
        try:
            while len(self.history) < self.epochs and not self.model.stop_training:
                self._epoch(len(self.history), callback_list)
        finally:
            callback_list.on_train_end()
        return self.history

    def ask(self, name: str) -> None:
        """Asks for a checkpoint and the end after the next call of the device or batch of the validation.

        It may be called from any thread. A validation that was cut off is taken anew when the run goes on.

        Args:
            name: name of the signal that asks, for the message.
        """
        self.asked = name

    def _epoch(self, epoch, callbacks):
        metrics = self.loop.task.metrics
        callbacks.on_epoch_begin(epoch)
        end = (epoch + 1) * self.steps
        if self.step == self.renewed_at > self.made_at:
            self._make_batches()
        while self.step < end:
            before = self.step
            steps = min(
                self.steps_per_loop, end - before, self.checkpoint_steps - before % self.checkpoint_steps
            )
            callbacks.on_train_batch_begin(before % self.steps)
            started, signal = time.monotonic(), tf.constant(float(bool(self.asked)))
            sums, asked = self.loop.train(self.batches, tf.constant(steps), signal)
            if not math.isfinite(loss := float(sums["loss"])):
                self._go_back(f"The loss is {loss} in step {before + steps}")
                if len(self.history) < epoch:  # the last checkpoint was damaged
                    return
                continue
            self.step = before + steps
            add(self.totals, sums)
            self.seconds += time.monotonic() - started
            callbacks.on_train_batch_end((self.step - 1) % self.steps, {"steps": steps, **metrics(sums)})
            if asked:
                self._stop()
            if self.step % self.checkpoint_steps == 0 and self.step < end:
                self._save()
        if not self.totals:
            raise UserError(
                f"Epoch {epoch + 1} would end at step {end}, but the run is after step {self.step}: the "
                "images are fewer than when it began."
            )
        if epoch == 0:
            for remark in self.loop.task.remarks(self.totals):
                print(remark, file=sys.stderr)
        logs = metrics(self.totals) | {
            "learning_rate": float(self.optimizer.learning_rate),
            "images_per_second": float(self.totals["images"]) / self.seconds,
        }
        logs |= {f"val_{key}": value for key, value in self._validate().items()}
        if self.loop.ema_decay:
            logs |= {f"val_ema_{key}": value for key, value in self._validate(average=True).items()}
        self.totals, self.seconds = {}, 0.0
        self.history.append({"epoch": epoch + 1, **logs})
        callbacks.on_epoch_end(epoch, logs)
        self._save()

    def _make_batches(self):
        """Batches from the next step on."""
        self.batches, self.made_at = self.make_batches(self.step, self.nans), self.step

    def _validate(self, average=False) -> dict[str, float]:
        """Metrics of the weights, or of their moving average, on the validation images."""
        if average:
            self.loop.swap_average()
        metrics = self.loop.evaluate(self.validation, lambda: bool(self.asked))
        if average:
            self.loop.swap_average()
        if metrics is None:
            self._stop()
        return metrics

    def _save(self):
        if not self.folder:
            return
        if name := checkpoints.not_finite(self.loop):
            self._go_back(f"{name} is not finite after step {self.step}")
            return
        if not self.writes:
            return
        checkpoints.save(self.folder, self.step, self.loop, self._state())

    def _state(self) -> dict:
        return {
            "step": self.step,
            "history": self.history,
            "totals": {name: np.asarray(value).tolist() for name, value in self.totals.items()},
            "seconds": self.seconds,
            "nans": self.nans,
            "rate_factor": float(self.rate_factor),
        }

    def _restore(self) -> bool:
        like = self._state() | {"history": []}
        del like["seconds"], like["totals"]  # of which earlier versions kept others
        state = checkpoints.restore(self.folder, self.loop, like) if self.folder else None
        if state:
            self.step, self.history[:] = state["step"], state["history"]
            totals = state["totals"]
            if isinstance(totals, list):  # of an earlier version
                totals = dict(zip(("loss", "accuracy", "images"), totals, strict=True)) if any(totals) else {}
            self.totals = {name: np.array(value) for name, value in totals.items()}
            self.seconds = state.get("seconds", math.nan)
            self.nans = max(self.nans, state["nans"])
            self.rate_factor.assign(state["rate_factor"])
        return bool(state)

    def _go_back(self, what):
        self.nans += 1
        if self.nans > self.nan_restores or not self.folder:
            raise FloatingPointError(
                f"{what}, after going back {counted(self.nans - 1, 'time')}: lower the learning rate, "
                "lengthen the warm-up or clip gradients."
            )
        self._restore()
        self.rate_factor.assign(self.nan_rate_factor**self.nans)
        self._make_batches()
        left = counted(self.nan_restores - self.nans, "more time")
        print(
            f"{what}: back to step {self.step}, with other images from there on and "
            f"{float(self.rate_factor):g} of the learning rate; {left}.",
            file=sys.stderr,
        )

    def _stop(self):
        self._save()
        asked = self.asked or "Another worker was asked to end"
        print(f"{asked}: saved after step {self.step}; {self.again} goes on.", file=sys.stderr)
        sys.exit(REQUEUE)
