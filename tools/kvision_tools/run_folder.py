"""The run folder: its owner, the run and the images that it belongs to, and the files that may be removed."""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import socket
import sys
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import keras
import tensorflow as tf

import kvision
from kvision import labels, run_info
from kvision.data.identity import Identity
from kvision.data.sources import absolute
from kvision.errors import UserError, naming
from kvision.files import check_folder, replacing
from kvision.names import counted
from kvision.weights import is_file
from kvision_tools.checkpoints import name_of, newest
from kvision_tools.config import TrainConfig, keyword

# what may differ when a run goes on
NOT_OF_THE_RUN = ("output", "overwrite", "dry_run", "debug_batch", "worker_timeout", "max_unreadable")
COMPLETED = ("crop", "interpolation", "learning_rate", "warmup_epochs")  # that follow from others where open
LOCK = ".kvision.lock"  # held while a training runs; says who holds it
BEGINNING = ".kvision.beginning"  # there until the folder is complete
FIRST = {LOCK, f".{run_info.LABELS}", f".{run_info.FLAGS}"}  # a folder with nothing else holds no run yet
FILES = re.compile(  # that kvision-train and kvision-export write, and what kills leave of them
    r"\.kvision\.(lock|beginning)|\.(flags|labels|dataset|run|metrics|curves|debug_batch)\.tmp"
    r"|\.?(flags\.txt|labels\.txt|metrics\.csv|(curves|debug_batch)\.png|model\.keras)|(dataset|run)\.json"
    r"|checkpoints/(step_\d+\.(safetensors|tmp)|\.step_\d+\.tmp)"
    r"|tensorboard/(train|validation)/events\.out\.tfevents\.[^/]+"
    r"|(export|\.export\.(part|old))/([^/]+\.tflite|labels\.txt|report\.(json|html))"
)
FOLDERS = re.compile(r"checkpoints|tensorboard(/train|/validation)?|export|\.export\.(part|old)")


def flag_lines(config: TrainConfig) -> list[str]:
    """The flags of kvision-train that make this run, as in flags.txt."""
    return [line for lines in _lines(config).values() for line in lines.splitlines()]


def check(folder: Path, config: TrainConfig, overwrite: bool) -> bool:
    """Whether the folder holds this run, to go on with; it may have had fewer epochs.

    Raises:
        ValueError: the folder holds no run, or another than this and no `overwrite`, or with it what no run
            writes; or another process trains in it.
    """
    if (folder / LOCK).is_file():
        with open(folder / LOCK, errors="replace") as file:
            _hold(file, folder, fcntl.LOCK_SH)
    return _holds_this(folder, config, overwrite)


def is_this(folder: Path, config: TrainConfig) -> bool:
    """Whether the folder holds a run with this configuration."""
    return bool(saved := _read_flags(folder)) and not _differences(saved, config)


def warmup_epochs(folder: Path) -> float | None:
    """The warm-up of the run in a folder; None where there is none, or one that took no step."""
    if _took_no_step(folder):
        return None
    with contextlib.suppress(ValueError):  # it is missing, or not a number
        return float(_value(_read_flags(folder).get("warmup_epochs", "")))


def compare(folder: Path, identities: Mapping[str, Identity]) -> None:
    """Checks that a run goes on with the images that it began with.

    Args:
        folder: the run folder.
        identities: identities of the dataset's splits, by name.

    Raises:
        ValueError: they are others, the run's record of them is damaged, or its labels.txt was edited.
    """
    advice = "`overwrite=True` starts anew, another `output` keeps both"
    before = run_info.read_identities(folder)
    if not before:
        names, now = labels.read(folder / run_info.LABELS), identities["train"].class_names
        if tuple(names) != now:
            raise UserError(
                f"'{folder}' has the classes {_few(names)}, but `data` has {_few(now)}: {advice}."
            )
        print(
            f"'{folder}' has no {run_info.DATASET}: it goes on with the images as they are now.",
            file=sys.stderr,
        )
        return
    changes = {split: before[split].changes(now) for split, now in identities.items()}
    if any(changes.values()):
        text = "; ".join(f"{split}: {', '.join(few)}" for split, few in changes.items() if few)
        raise UserError(f"'{folder}' was trained on other images ({text}): {advice}.")
    path, expected = folder / run_info.LABELS, identities["train"].class_names
    if path.exists() and (names := labels.read(path)) != expected:
        raise UserError(
            f"'{path}' has other class names than the run: {_few(names)} instead of {_few(expected)}. "
            "Remove it, and the run writes its own."
        )
    if any(before[split].touched(now) for split, now in identities.items()):
        print(
            f"Images were written since '{folder}' began, with equal names and sizes; it goes on.",
            file=sys.stderr,
        )


def make(folder: Path, config: TrainConfig, identities: Mapping[str, Identity], overwrite: bool) -> TextIO:
    """Makes the run folder where `check` finds none to go on with, in place of what it allows to replace.

    Returns:
        The lock, which is held until it is closed or the process ends, however it ends.
    """
    _holds_this(folder, config, overwrite)
    with naming(folder):
        return _make(folder, config, identities, overwrite)


def _make(folder, config, identities, overwrite) -> TextIO:
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / LOCK, "a+", errors="replace")  # noqa: SIM115
    try:
        _hold(lock, folder, fcntl.LOCK_EX)
        lock.truncate(0)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
        lock.flush()
        _fill(folder, config, identities, overwrite)
    except BaseException:
        lock.close()
        raise
    return lock


def _fill(folder, config, identities, overwrite):
    of_splits = {split: identity.to_json() for split, identity in identities.items()}
    contents = {
        run_info.DATASET: json.dumps(of_splits) + "\n",
        run_info.LABELS: "\n".join(identities["train"].class_names) + "\n",
        run_info.RUN: _run_info(config).to_json(),
    }
    all_flags = "\n".join([*flag_lines(config), f"--output={folder}"]) + "\n"
    if _holds_this(folder, config, overwrite):  # another process may have begun meanwhile
        contents = {name: text for name, text in contents.items() if not (folder / name).exists()}
        saved = _read_flags(folder)
        if _is_longer(_differences(saved, config), config):
            contents[run_info.FLAGS] = all_flags
            epochs = counted(int(_value(saved["epochs"])), "epoch")
            print(
                f"'{folder}' had {epochs} and goes on to {config.epochs}, with the "
                "learning rates that a run of this length has from here on.",
                file=sys.stderr,
            )
    else:
        differences = _differences(_read_flags(folder), config)
        if differences and not overwrite and _took_no_step(folder):
            print(
                f"'{folder}' held a run that took no step, with other flags ({_compared(differences)}); it "
                "begins anew.",
                file=sys.stderr,
            )
        (folder / BEGINNING).touch()
        _clear(folder)
        contents[run_info.FLAGS] = all_flags
    for name, content in contents.items():
        with replacing(folder / name) as tmp_path:
            tmp_path.write_text(content, encoding="utf-8")
    (folder / BEGINNING).unlink(missing_ok=True)


def _run_info(config) -> run_info.RunInfo:
    names = [field.name for field in dataclasses.fields(run_info.RunInfo)]
    settings = {name: getattr(config, name) for name in names if hasattr(config, name)}
    versions = {package.__name__: package.__version__ for package in (kvision, keras, tf)}
    settings["data"] = absolute(config.data)
    settings["task"] = config.task or kvision.info(config.model).task
    return run_info.RunInfo(**settings, versions=versions)


def _hold(file, folder, kind):
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(
            f"Another training is writing to '{folder}' ({file.read(200)!r}): wait for its end, or "
            "give another `output`."
        ) from None
    except OSError as error:  # a file system without locks
        print(
            f"'{folder}' cannot be locked ({error.strerror}): start one training at a time.", file=sys.stderr
        )


def _holds_this(folder, config, overwrite) -> bool:
    if not folder.is_dir():
        check_folder(folder)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    saved = _read_flags(folder)
    differences = _differences(saved, config) if saved else {}
    differences = {} if _is_longer(differences, config) else differences
    if BEGINNING in names or (saved and overwrite) or (differences and _took_no_step(folder)):
        if foreign := _foreign(folder):
            raise UserError(
                f"'{folder}' is not replaced, as no run writes {_few(foreign)}: move that away, or give "
                "another `output`."
            )
        return False
    if saved:
        if (folder / run_info.RUN).exists():
            try:
                run_info.read(folder)
            except UserError as error:
                raise UserError(f"{error} Remove it, and the run writes its own.") from None
        if differences:
            rule = "a run may have more epochs, never fewer; " if differences.keys() == {"epochs"} else ""
            raise UserError(
                f"'{folder}' holds a run with other flags ({_compared(differences)}); {rule}`overwrite=True` "
                "starts anew."
            )
        if "metrics.csv" in names and not newest(folder / "checkpoints"):
            raise UserError(f"'{folder}' holds a run without its checkpoints: `overwrite=True` starts anew.")
        if "metrics.csv" in names and not _is_archive(folder / run_info.MODEL):
            raise UserError(
                f"'{folder / run_info.MODEL}', with the weights of the run's best epoch, is missing or "
                "damaged: put it back, or `overwrite=True` starts anew."
            )
        return True
    if names >= {run_info.RUN, run_info.DATASET}:
        raise UserError(
            f"'{folder / run_info.FLAGS}', with the flags of the run, is missing or damaged: put it back, or "
            "give another `output`."
        )
    if names - FIRST:
        raise UserError(f"'{folder}' is not empty and not a run folder: give another `output`.")
    return False


def _took_no_step(folder) -> bool:
    """Whether the folder holds a run of which nothing but its beginning was saved."""
    written = any((folder / name).exists() for name in ("metrics.csv", run_info.MODEL))
    return bool(_read_flags(folder)) and not written and newest(folder / "checkpoints") in ("", name_of(0))


def _is_archive(path: Path) -> bool:
    """Whether a file is a ZIP archive whose members have their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def _foreign(folder) -> list[str]:
    """Relative paths in the folder that no run writes, links among them."""
    foreign = []
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (FOLDERS if name in folders else FILES).fullmatch(relative):
                foreign.append(relative)
    return foreign


def _clear(folder):
    """Removes what a run wrote; `_foreign` has made sure that there is nothing else."""
    for root, folders, files in os.walk(folder, topdown=False):
        for name in {*files} - {LOCK, BEGINNING}:
            Path(root, name).unlink()
        for name in folders:
            Path(root, name).rmdir()


def _lines(config) -> dict[str, str]:
    """The lines of this run's flags in flags.txt, by name; a repeated flag has several, one of None is ""."""
    return {name: line for name, line in config.lines().items() if name not in NOT_OF_THE_RUN}


def _read_flags(folder) -> dict[str, str]:
    """The lines of a run folder's flags.txt, by name; empty where that is missing, or not kvision-train's."""
    try:
        lines = (folder / run_info.FLAGS).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, UnicodeDecodeError):
        return {}
    flags: dict[str, str] = {}
    for line in lines:
        name = line.removeprefix("--").partition("=")[0]
        name = name if hasattr(TrainConfig, name) or name == "model_kwarg" else name.removeprefix("no")
        flags[name] = f"{flags[name]}\n{line}" if name in flags else line
    if not all(line.startswith("--") for line in lines) or not {"model", "data"} <= flags.keys():
        return {}
    return {name: line for name, line in flags.items() if name not in NOT_OF_THE_RUN}


def _differences(saved, config) -> dict[str, tuple[str, str]]:
    """The saved lines of a run folder's flags and those of this run that differ, by name.

    A flag that the folder's run did not have yet is at its default there. Paths of one file are equal.
    """
    asked, default = _lines(config), TrainConfig(model=config.model, data=config.data).lines()
    for name in asked.keys() - saved.keys():
        if asked[name] == default[name]:
            del asked[name]
    names = asked.keys() | saved.keys()
    names -= {name for name in COMPLETED if getattr(config, name) is None}
    pairs = {name: (saved.get(name, ""), asked.get(name, "")) for name in sorted(names)}
    return {name: pair for name, pair in pairs.items() if _absolute(pair[0]) != _absolute(pair[1])}


def _absolute(lines: str) -> set:
    """Meanings of the lines of a flag: paths are absolute, keywords have values."""
    return {_meaning(line) for line in lines.splitlines()}


def _meaning(line):
    flag, _, value = line.partition("=")
    if flag == "--model_kwarg" and "=" in value:
        return flag, repr(keyword(value))
    if flag == "--data":
        return f"{flag}={absolute(value)}"
    if flag == "--weights" and is_file(value):
        return f"{flag}={os.path.abspath(os.path.expanduser(value))}"
    return line


def _is_longer(differences, config) -> bool:
    """Whether this run differs from that of a folder in more epochs alone."""
    epochs = _value(differences["epochs"][0]) if differences.keys() == {"epochs"} else ""
    return epochs.isdecimal() and config.epochs > int(epochs)


def _value(line: str) -> str:
    return line.partition("=")[2]


def _words(name, lines) -> str:
    return " ".join(lines.splitlines()) or f"no --{name}"


def _compared(differences) -> str:
    return "; ".join(
        f"the run has {_words(name, saved)}, this command {_words(name, asked)}"
        for name, (saved, asked) in differences.items()
    )


def _few(names) -> str:
    return ", ".join(map(repr, names[:5])) + ", ..." * (len(names) > 5)
