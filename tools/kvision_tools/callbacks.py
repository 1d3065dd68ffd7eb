"""Files and lines of a run that people read: the progress, `metrics.csv`, `curves.png`, the best model."""

import contextlib
import csv
import errno
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import rich.console
import rich.progress
import rich.table
import tensorflow as tf

from kvision import labels, networks, run_info
from kvision.data.skipped import Unreadable, report_unreadable
from kvision.files import replacing
from kvision_tools.loop import Loop

CURVES = "curves.png"


class Progress(keras.callbacks.Callback):
    """A live line of images a second, loss, the task's metric and time left, and one line an epoch.

    Args:
        monitor: name of the task's metric, see `kvision.tasks.Task`.
        epochs: number of epochs of the whole run.
        steps: number of steps in an epoch.
        first: number of steps that were taken before.
        batch_size: number of images in a step.
    """

    def __init__(self, monitor: str, epochs: int, steps: int, first: int, batch_size: int):
        super().__init__()
        self.monitor = monitor
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size
        self.console = rich.console.Console(highlight=False)
        self.bar = rich.progress.Progress(
            "{task.description}",
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            "{task.fields[metrics]}",
            rich.progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=epochs * steps, completed=first, metrics="")
        self.started, self.uncounted = None, -1  # time from which, and step after which, speed is measured

    def on_train_begin(self, logs):
        self.bar.start()

    def on_epoch_begin(self, epoch, logs):
        self.bar.update(self.task, description=f"epoch {epoch + 1}/{self.epochs}")
        self.done = epoch * self.steps
        if self.started is not None:
            self.started, self.uncounted = time.monotonic(), -1

    def on_train_batch_end(self, batch, logs):
        if self.started is None:  # the first call traces the step; speed is measured after it
            self.started, self.uncounted, speed = time.monotonic(), batch, ""
        else:
            images = (batch - self.uncounted) * self.batch_size
            speed = f"{images / max(time.monotonic() - self.started, 1e-9):.0f} images/s "
        self.bar.update(
            self.task,
            completed=self.done + batch + 1,
            metrics=f"{speed}loss {logs['loss']:.3f}{self._monitored(' ', logs)} "
            f"rate {float(self.model.optimizer.learning_rate):.2g}",
        )

    def on_epoch_end(self, epoch, logs):
        monitor, average = self.monitor, f"val_ema_{self.monitor}"
        average = f", its average {logs[average]:.3f}" if average in logs else ""
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}: loss {logs['loss']:.3f}{self._monitored(', ', logs)}; "
            f"val {logs['val_loss']:.3f}, {logs[f'val_{monitor}']:.3f}{average}; "
            f"{logs['images_per_second']:.0f} images/s",
            soft_wrap=True,
        )

    def on_train_end(self, logs):
        self.bar.stop()

    def _monitored(self, before, logs):
        """The task's metric, where it is one of training too."""
        return f"{before}{self.monitor} {logs[self.monitor]:.3f}" if self.monitor in logs else ""


class EventFiles(keras.callbacks.TensorBoard):
    """TensorBoard's files in a folder; what TensorFlow says of a full disk is an `OSError`."""

    def __init__(self, folder: Path):
        super().__init__(folder, write_graph=False)

    def on_epoch_end(self, epoch, logs=None):
        with self._writing():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        with self._writing():
            super().on_train_end(logs)

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) as error:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.log_dir) from error


def write_model(model: keras.Model, task, path: Path) -> None:
    """Writes a model in float32, with its task and class names."""
    with replacing(path, ".keras") as tmp_path:
        networks.portable(model).save(tmp_path)
        labels.add_to_keras(tmp_path, task.class_names, task.name)


class RunFiles(keras.callbacks.Callback):
    """Keeps `metrics.csv`, `curves.png` and `model.keras` of a run folder.

    The model is the best on validation, see `best`, with its own weights or their moving average, in float32.

    Args:
        folder: the run folder.
        loop: loop that trains the model.
        history: metrics of the epochs so far, one dict each; the trainer extends it.
    """

    def __init__(self, folder: Path, loop: Loop, history: list[dict]):
        super().__init__()
        self.folder, self.loop, self.history = folder, loop, history

    def on_epoch_end(self, epoch, logs):
        *before, now = self.history
        monitor = self.loop.task.monitor
        if all(best(now, monitor) > best(row, monitor) for row in before):
            average = best(now, monitor) > _worth(now, f"val_{monitor}", "val_loss")
            if average:
                self.loop.swap_average()
            write_model(self.model, self.loop.task, self.folder / run_info.MODEL)
            if average:
                self.loop.swap_average()
        with (
            replacing(self.folder / "metrics.csv") as tmp_path,
            open(tmp_path, "w", newline="", encoding="utf-8") as file,
        ):
            columns = dict.fromkeys(name for row in self.history for name in row)
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)

    def on_train_end(self, logs):
        if self.history:
            plot_curves(self.history, self.loop.task.monitor, self.folder / CURVES)


class Strict(keras.callbacks.Callback):
    """Ends the run at the first file that fails to decode, with a `UserError`.

    Args:
        unreadable: function that gives the unreadable files so far, by name.
    """

    def __init__(self, unreadable: Callable[[], dict[str, Unreadable]]):
        super().__init__()
        self.unreadable = unreadable

    def on_train_batch_end(self, batch, logs=None):
        report_unreadable(self.unreadable(), strict=True)

    def on_epoch_end(self, epoch, logs=None):
        self.on_train_batch_end(epoch)


def best(row: dict, monitor: str) -> tuple[float, float]:
    """The worth of the better of an epoch's weights and their moving average, to be compared.

    The higher `monitor` on validation decides; of equal ones, the lower validation loss.
    """
    kinds = (kind for kind in ("val", "val_ema") if f"{kind}_{monitor}" in row)
    return max(_worth(row, f"{kind}_{monitor}", f"{kind}_loss") for kind in kinds)


def _worth(row, metric, loss) -> tuple[float, float]:
    """Both of an epoch's values so that higher is better; NaN is worst."""
    of_metric, of_loss = (-math.inf if math.isnan(value) else value for value in (row[metric], -row[loss]))
    return of_metric, of_loss


def print_table(history: list[dict], monitor: str) -> None:
    """The best epoch by `monitor` and the last on the console."""
    best_row = max(history, key=lambda row: best(row, monitor))
    columns = [key for key in history[0] if key != "epoch"]
    table = rich.table.Table("", *(f"epoch {row['epoch']}" for row in (best_row, history[-1])))
    table.columns[1].header = f"best: {table.columns[1].header}"
    table.columns[2].header = f"last: {table.columns[2].header}"
    for key in columns:
        table.add_row(key.replace("_", " "), *(f"{row[key]:.4g}" for row in (best_row, history[-1])))
    rich.console.Console(highlight=False).print(table)


def plot_curves(history: list[dict], monitor: str, path: Path) -> None:
    """Loss and `monitor` over epochs, training and validation, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row["epoch"] for row in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", monitor), strict=True):
        lines = {
            metric: "training",
            f"val_{metric}": "validation",
            f"val_ema_{metric}": "validation, average",
        }
        for column, label in lines.items():
            if column not in history[0]:
                continue
            axes.plot(epochs, [row[column] for row in history], label=label, marker="." * (len(epochs) < 40))
        axes.set_xlabel("epoch")
        axes.set_title(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as tmp_path:
        figure.savefig(tmp_path, dpi=120, format="png")
