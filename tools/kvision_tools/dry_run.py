"""The report of `kvision-train --dry_run`, measured on a few steps."""

import resource
import sys
import time

import numpy as np
import rich.console
import rich.table
import tensorflow as tf

from kvision.names import counted

STEPS = 5


def dry_run(run) -> None:
    """Takes a few steps of a `train.Run` and prints a table; writes nothing."""
    batches = run.batches(0, 0)
    started = time.perf_counter()
    float(run.loop.train(batches, tf.constant(1))[1])
    first = time.perf_counter() - started
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        float(run.loop.train(batches, tf.constant(1))[1])
        times.append(time.perf_counter() - started)
    step, model = float(np.median(times)), run.model
    parameters = {kind: sum(v.value.shape.num_elements() for v in variables) for kind, variables in (
        ("trained", model.trainable_variables), ("kept", model.non_trainable_variables),
        ("of the optimizer", run.optimizer.variables))}  # fmt: skip
    train, val = run.train_data, run.val_data
    total = step * run.steps
    rows = {
        "network": f"{model.name}, {counted(len(run.class_names), 'class')}",
        "input": f"{' x '.join(map(str, run.image_shape))}, {counted(run.part_size, 'image')} at once",
        "parameters": ", ".join(f"{count:,} {kind}" for kind, count in parameters.items()),
        "images": f"{train.size:,} to train, {val.size:,} to validate",
        "steps": f"{run.steps:,} an epoch",
        "devices": f"{run.strategy.num_replicas_in_sync}",
        "memory": _memory(),
        "first step": f"{first:.1f} s",
        "a step": f"{1000 * step:.0f} ms",
        "an epoch": f"{total / 60:.1f} min, without validation",
    }
    table = rich.table.Table(show_header=False)
    for row in rows.items():
        table.add_row(*row)
    rich.console.Console(highlight=False).print(table)


def _memory() -> str:
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus]
        return f"{max(peaks) / 2**20:,.0f} MiB on a GPU at its peak"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{peak * unit / 2**20:,.0f} MiB of this process at its peak"
