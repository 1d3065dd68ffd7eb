"""Flags that several commands have; those of a group belong to the command that calls its function."""

import dataclasses
import math

from absl import flags

from kvision import cli
from kvision.choices import WEIGHTS
from kvision.errors import UserError
from kvision.spec import Preprocess

flags.disclaim_key_flags()

FLAGS = flags.FLAGS
OF_ANSWERS = ("beam", "horizon")  # flags that are fields of a task


def define_model(required: bool = True) -> None:
    """Defines the flags of a network: which it is, its class names, the pixels that it expects."""
    flags.DEFINE_string(
        "model",
        None,
        "Run folder, .keras file, or name of a network that kvision-info lists.",
        required=required,
    )
    flags.DEFINE_bool("allow_nonfinite", False, "Whether --weights may hold NaN or infinity.")
    flags.DEFINE_string("weights", None, f"Trained weights for a network given by name: {WEIGHTS}.")
    flags.DEFINE_string("labels", None, cli.NAMES)
    flags.DEFINE_integer(
        "image_size",
        None,
        "Height and width of the input in pixels, for a name or a network that takes any size.",
        1,
    )
    flags.DEFINE_list(
        "mean",
        None,
        "Mean that the network of a .keras file expects to be subtracted from pixels in [0, 255]: one value, "
        "or one a channel. Pixels are unchanged by default.",
    )
    flags.DEFINE_list(
        "std",
        None,
        "Standard deviation of pixels in [0, 255] by which the network of a .keras file expects them to be "
        "divided, after --mean is subtracted: one value, or one a channel.",
    )
    flags.DEFINE_list(
        "input_range",
        None,
        "Range to which the network of a .keras file expects pixels to be scaled, such as -1,1 or 0,1; "
        "another way to give --mean and --std.",
    )


def define_reading() -> None:
    """Defines the flags of how images are read."""
    flags.DEFINE_bool("strict", False, "Whether the command ends at the first file that fails to decode.")
    flags.DEFINE_bool(
        "exif",
        None,
        "Whether images are turned as their EXIF orientation says; a run's own choice by default, else true.",
    )


def define_dataset() -> None:
    """Defines the flags of a dataset and of how its images are read."""
    define_reading()
    flags.DEFINE_float(
        "val_fraction",
        None,
        "Share held out where the dataset has no split of its own; by default that of the training for a "
        "run's own data, else 0.2.",
    )
    flags.DEFINE_bool("allow_outside", False, "Whether a CSV file may list images outside its own folder.")
    flags.DEFINE_float("max_unreadable", 0.1, cli.MAX_UNREADABLE, 0, 1)


def define_answers() -> None:
    """Defines the flags of how networks of sequences answer."""
    flags.DEFINE_integer(
        "beam",
        None,
        "Number of captions that are followed at once, of which the likeliest is taken, 3 by default; with 1 "
        "it is the likeliest word at each place.",
        1,
    )
    flags.DEFINE_integer(
        "horizon",
        None,
        "Number of steps to forecast, 16 by default; each follows from those before.",
        1,
        10**4,
    )


def opened():
    """The `kvision.opening.Opened` network that the flags name, without their `preprocess`."""
    from kvision import opening
    from kvision.tasks import TASKS

    found = opening.open_trained(
        FLAGS.model, FLAGS.weights, FLAGS.image_size, FLAGS.labels, FLAGS.allow_nonfinite
    )
    given = {name: FLAGS[name].value for name in OF_ANSWERS if name in FLAGS and FLAGS[name].present}
    for name in given:
        having = [task.name for task in TASKS.values() if hasattr(task, name)]
        if found.task.name not in having:
            raise UserError(
                f"`--{name}` is for {' and '.join(having)}; {found.model.name} learned {found.task.name}."
            )
    return dataclasses.replace(found, task=dataclasses.replace(found.task, **given))


def load_data(opened, data: str | None, split: str, **keywords):
    """`kvision.network_data.load_data` by the flags of `define_dataset`."""
    from kvision import network_data

    return network_data.load_data(
        opened,
        data,
        split,
        val_fraction=FLAGS.val_fraction,
        allow_outside=FLAGS.allow_outside,
        exif=FLAGS.exif,
        max_unreadable=FLAGS.max_unreadable,
        **keywords,
    )


def preprocess() -> Preprocess | None:
    """The normalisation that --mean and --std or --input_range ask for; None for none."""
    names = "mean", "std", "input_range"
    given = {name: value for name in names if (value := FLAGS[name].value) is not None}
    values = {name: _numbers(name, texts) for name, texts in given.items()}
    if "input_range" in values:
        if len(values) > 1:
            raise UserError("`--input_range` and `--mean` or `--std` say the same in two ways: give one.")
        low, high = values["input_range"] if len(values["input_range"]) == 2 else (0, 0)
        if not low < high:
            raise UserError(
                f"`--input_range` must be two numbers, the lower first; got {','.join(given['input_range'])}."
            )
        std = 255 / (high - low)
        return Preprocess(((0 - low) * std,), (std,))
    if not values:
        return None
    mean, std = values.get("mean", (0.0,)), values.get("std", (1.0,))
    count = max(len(mean), len(std))
    if {len(mean), len(std)} - {1, count}:
        raise UserError(f"`--mean` and `--std` must have one value a channel, or one; got {mean} and {std}.")
    mean, std = (part * count if len(part) == 1 else part for part in (mean, std))
    if max(map(abs, mean)) <= 1 and max(std) <= 1 and {*mean, *std} != {0.0, 1.0}:
        scaled = " ".join(
            f"--{name}={','.join(f'{255 * value:g}' for value in values[name])}" for name in values
        )
        raise UserError(f"`--mean` and `--std` are of pixels in [0, 255], not in [0, 1]: give {scaled}.")
    return Preprocess(mean, std)


def _numbers(name: str, texts: list[str]) -> tuple[float, ...]:
    """The values of a flag that lists numbers."""
    try:
        values = tuple(map(float, texts))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
        kind = "positive numbers" if name == "std" else "numbers"
        raise UserError(f"`--{name}` must be {kind} with commas between them; got {','.join(texts)!r}.")
    return values
