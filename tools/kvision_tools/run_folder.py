"""The run folder: which flags made it, and whether a run may use it."""

import os
import shutil
from pathlib import Path

from absl import flags

from kvision import runs
from kvision.errors import UserError

FLAGS = flags.FLAGS
NOT_OF_THE_RUN = (  # what may differ when a run goes on
    "output",
    "overwrite",
    "dry_run",
    "worker_timeout",
    "max_unreadable",
)


def flag_lines() -> list[str]:
    """The flags of kvision-train that make this run, as in flags.txt."""
    module = FLAGS.find_module_defining_flag("model")
    lines = "\n".join(flag.serialize() for flag in FLAGS.get_flags_for_module(module))
    return _of_the_run(lines)  # a repeated flag has several


def check(folder: Path, overwrite: bool) -> None:
    """A ValueError for a folder that holds no run, or without `overwrite` another than this."""
    if (folder / runs.FLAGS).is_file():
        there = set(_of_the_run((folder / runs.FLAGS).read_text()))
        if (differ := sorted(there ^ set(flag_lines()))) and not overwrite:
            raise UserError(
                f"'{folder}' holds a run with other flags ({', '.join(differ)}); --overwrite starts anew."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"'{folder}' is not empty and no run folder: give another --output.")


def make(folder: Path, class_names, overwrite: bool) -> None:
    """Makes the run folder; with `overwrite`, instead of the run that is there."""
    if (folder / runs.FLAGS).is_file():
        if not overwrite:
            return
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*flag_lines(), f"--output={folder}"]) + "\n"
    for name, content in ((runs.LABELS, "\n".join(class_names) + "\n"), (runs.FLAGS, text)):
        beside = folder / f".{name}"
        beside.write_text(content, encoding="utf-8")
        os.replace(beside, folder / name)


def _of_the_run(text) -> list[str]:
    names = ((line.removeprefix("--no").removeprefix("--"), line) for line in text.splitlines())
    return [line for name, line in names if name and not name.startswith(NOT_OF_THE_RUN)]
