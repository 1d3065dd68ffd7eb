"""What a person sees of a run: the progress line, `metrics.csv`, `curves.png`, the best model."""

import csv
import os
import time
from pathlib import Path

import keras
import rich.console
import rich.progress

from kvision import runs


class Progress(keras.callbacks.Callback):
    """A live line of images a second, loss, accuracy and time left, and one line an epoch.

    Args:
        epochs: of the whole run.
        steps: in an epoch.
        first_epoch: epochs done before.
        batch_size: images in a step.
    """

    def __init__(self, epochs: int, steps: int, first_epoch: int, batch_size: int):
        super().__init__()
        self.epochs, self.batch_size = epochs, batch_size
        self.console = rich.console.Console(highlight=False)
        self.bar = rich.progress.Progress(
            "{task.description}",
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            "{task.fields[speed]:.0f} images/s",
            "loss {task.fields[loss]:.3f}",
            "accuracy {task.fields[accuracy]:.3f}",
            rich.progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task(
            "training",
            total=epochs * steps,
            completed=first_epoch * steps,
            speed=0,
            loss=float("nan"),
            accuracy=0,
        )

    def on_train_begin(self, logs):
        self.bar.start()

    def on_epoch_begin(self, epoch, logs):
        self.bar.update(self.task, description=f"epoch {epoch + 1}/{self.epochs}")
        self.started, self.first = time.monotonic(), None

    def on_train_batch_end(self, batch, logs):
        if self.first is None:  # the first call traces the step; speed is measured after it
            self.started, self.first = time.monotonic(), batch
        speed = (batch - self.first) * self.batch_size / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(
            self.task, advance=logs["steps"], speed=speed, loss=logs["loss"], accuracy=logs["accuracy"]
        )

    def on_epoch_end(self, epoch, logs):
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}: loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f}; "
            f"val {logs['val_loss']:.3f}, {logs['val_accuracy']:.3f}; "
            f"{logs['images_per_second']:.0f} images/s"
        )

    def on_train_end(self, logs):
        self.bar.stop()


class RunFiles(keras.callbacks.Callback):
    """Keeps `metrics.csv`, `curves.png` and `model.keras` (the best on validation) of a run folder.

    Args:
        folder: the run folder.
        history: the epochs so far, one dict each; extended here.
    """

    def __init__(self, folder: Path, history: list[dict]):
        super().__init__()
        self.folder, self.history = folder, history

    def on_epoch_end(self, epoch, logs):
        best = max((row["val_accuracy"] for row in self.history), default=-1.0)
        self.history.append({"epoch": epoch + 1, **logs})
        if logs["val_accuracy"] > best:
            beside = self.folder / f".{runs.MODEL}"
            self.model.save(beside)
            os.replace(beside, self.folder / runs.MODEL)
        beside = self.folder / ".metrics.csv"
        with open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, self.history[0].keys())
            writer.writeheader()
            writer.writerows(self.history)
        os.replace(beside, self.folder / "metrics.csv")

    def on_train_end(self, logs):
        if self.history:
            plot_curves(self.history, self.folder / "curves.png")


def plot_curves(history: list[dict], path: Path) -> None:
    """Loss and accuracy over epochs, training and validation, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row["epoch"] for row in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for column, label in ((metric, "training"), (f"val_{metric}", "validation")):
            axes.plot(epochs, [row[column] for row in history], label=label, marker="." * (len(epochs) < 40))
        axes.set_xlabel("epoch")
        axes.set_title(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    beside = path.with_name(f".{path.name}")
    figure.savefig(beside, dpi=120, format="png")
    os.replace(beside, path)
