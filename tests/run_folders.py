"""Run folders, made without training; and a run that is killed."""

import os
import signal
import time

import numpy as np
import safetensors.numpy
from absl import flags
from helpers import command, start

from kvision.data.identity import identify
from kvision_tools import run_folder
from kvision_tools.checkpoints import name_of
from kvision_tools.config import define_flags, from_flags

ARGUMENTS = ["kvision-train", "--model=lenet5", "--data=digits", "--model_kwarg=a=1", "--model_kwarg=b=2"]


class Command:
    """The command whose flags were parsed last."""

    config = None


def parse(*more):
    """Parses flags of kvision-train; the functions below take the last ones."""
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    flag_values([*ARGUMENTS, "--crop=1", "--interpolation=bilinear", *more])
    Command.config = from_flags(flag_values)


def check(folder, overwrite=False):
    """Whether the folder holds this run; see `run_folder.check`."""
    return run_folder.check(folder, Command.config, overwrite)


def identities(names=("cat", "dog"), labels=(0, 0, 1)):
    """Identities of two equal splits."""
    here = identify(names, np.array(labels), None)
    return {"train": here, "val": here}


def made(folder, overwrite=False, **what):
    """A run that has saved nothing but its beginning."""
    run_folder.make(folder, Command.config, identities(**what), overwrite).close()
    return folder


def trained(folder, step=1):
    """A run that has saved a checkpoint."""
    made(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / name_of(step)).touch()
    return folder


def contents(folder):
    """The bytes of all files in a folder, by their names."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_killed(flags, whole, tmp_path):
    """Asserts that a run which is killed ends with the weights of one that was not."""
    killed = tmp_path / "killed"
    process = start(*flags, f"--output={killed}")
    while process.is_alive() and not list(killed.glob("checkpoints/step_*[1-9].safetensors")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert "Going on after step" in command(*flags, f"--output={killed}")
    expected, found = (
        safetensors.numpy.load_file(max(folder.glob("checkpoints/step_*.safetensors")))
        for folder in (whole, killed)
    )
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
