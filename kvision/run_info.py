"""Description of a run, which its folder holds as run.json."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvision.choices import INTERPOLATIONS
from kvision.data.identity import Identity
from kvision.errors import UserError
from kvision.tasks import TASKS

MODEL, LABELS, FLAGS, RUN, DATASET = "model.keras", "labels.txt", "flags.txt", "run.json", "dataset.json"


@dataclass(frozen=True)
class RunInfo:
    """Description of a run.

    Attributes:
        task: one of `kvision.tasks.TASKS`.
        model: the network's name.
        model_kwarg: keywords of its builder.
        data, val_fraction, allow_outside: the dataset, see `kvision.data.load`.
        crop, interpolation, exif: how images are evaluated, see `kvision.data.load`.
        versions: of the packages that trained it, by name.
    """

    task: str = "classification"
    model: str = ""
    model_kwarg: Mapping[str, object] = dataclasses.field(default_factory=dict)
    data: str | None = None
    val_fraction: float = 0.2
    allow_outside: bool = False
    crop: float = 1.0
    interpolation: str = "bilinear"
    exif: bool = True
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The content of run.json; values that JSON has not, such as tuples, are lists there."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read(folder: Path) -> RunInfo:
    """Reads run.json of a run folder; in an older one without it, the flags take its place.

    Raises:
        UserError: run.json is damaged.
    """
    try:
        fields = json.loads((folder / RUN).read_text(encoding="utf-8"))
        run = RunInfo(**{field.name: fields[field.name] for field in dataclasses.fields(RunInfo)})
        if _is_sound(run):
            return run
    except FileNotFoundError:
        flags = _read_flags(folder)
        settings = {
            "val_fraction": float(flags.get("val_fraction", RunInfo.val_fraction)),
            "allow_outside": flags.get("allow_outside") == "true",
            "crop": float(flags.get("crop", RunInfo.crop)),
            "interpolation": flags.get("interpolation", RunInfo.interpolation),
            "exif": flags.get("exif", "true") == "true",
        }
        if flags.get("task") in TASKS:
            settings["task"] = flags["task"]
        return RunInfo(model=flags.get("model", ""), data=flags.get("data"), **settings)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"'{folder / RUN}' is damaged, or was written by a later version of kvision.")


def read_identities(folder: Path) -> dict[str, Identity]:
    """The identities of the splits that a run was trained on, by their names; none where they were not kept.

    Raises:
        UserError: dataset.json is damaged.
    """
    try:
        fields = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        return {split: Identity.from_json(fields[split]) for split in ("train", "val")}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"'{folder / DATASET}' is damaged: remove it to go on without comparing the images."
        ) from None


def _is_sound(run: RunInfo) -> bool:
    """Whether the values that run.json holds are of the types and in the ranges of a run's."""
    for name, hint in typing.get_type_hints(RunInfo).items():
        value, kind = getattr(run, name), typing.get_origin(hint) or hint
        kind = {types.UnionType: hint, float: (int, float)}.get(kind, kind)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return False
    return (
        run.task in TASKS
        and run.interpolation in INTERPOLATIONS
        and 0 < run.crop <= 1
        and 0 < run.val_fraction < 1
    )


def _read_flags(folder) -> dict[str, str]:
    """The flags that a run folder was trained with, by name."""
    flags = {}
    for line in filter(None, (folder / FLAGS).read_text().splitlines()):
        name, equals, value = line.removeprefix("--").partition("=")
        if not equals:  # a switch
            name, value = name.removeprefix("no"), "false" if name.startswith("no") else "true"
        flags[name] = value
    return flags
