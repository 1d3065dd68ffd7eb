"""The report of `kvision-train --dry_run`, measured on a few steps."""

import resource
import sys
import time

import numpy as np
import rich.console
import rich.table
import tensorflow as tf

from kvision import networks
from kvision.data import read_errors
from kvision.names import counted
from kvision_tools.preparation import Preparation

STEPS = 5


def dry_run(prepared: Preparation) -> None:
    """Takes a few steps of a run and prints a table; writes nothing."""
    batches = prepared.batches(0, 0)
    times = []
    with read_errors(prepared.opened):
        for _ in range(1 + STEPS):
            started = time.perf_counter()
            float(prepared.loop.train(batches, tf.constant(1))[1])
            times.append(time.perf_counter() - started)
    first, *times = times
    step, model = float(np.median(times)), prepared.model
    parameters = {kind: sum(v.value.shape.num_elements() for v in variables) for kind, variables in (
        ("trained", model.trainable_variables), ("kept", model.non_trainable_variables),
        ("of the optimizer", prepared.optimizer.variables))}  # fmt: skip
    train, val = prepared.train_data, prepared.val_data
    total = step * prepared.steps
    shape = " x ".join(map(str, networks.image_shape(model)[1:]))
    rows = {
        "network": f"{model.name}, {counted(len(prepared.train_data.class_names), 'class')}",
        "input": f"{shape}, {counted(prepared.part_size, 'image')} at once",
        "parameters": ", ".join(f"{count:,} {kind}" for kind, count in parameters.items()),
        "images": f"{train.size:,} to train, {val.size:,} to validate",
        "steps": f"{prepared.steps:,} an epoch",
        "devices": f"{prepared.strategy.num_replicas_in_sync}",
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
