"""Networks by name."""

from collections.abc import Callable

from kvision.errors import UserError
from kvision.spec import ModelInfo, did_you_mean, select

_BUILDERS: dict[str, Callable] = {}
_INFO: dict[str, ModelInfo] = {}


def register(info: ModelInfo, builder: Callable) -> None:
    """Makes `builder` known under `info.name`. Called by `Family.builder`."""
    if info.name in _BUILDERS:
        raise ValueError(f"The model name {info.name!r} is taken twice.")
    _BUILDERS[info.name] = builder
    _INFO[info.name] = info


def create_model(name: str, /, **keywords):
    """Builds a network by name.

    Args:
        name: one of `list_models()`.
        **keywords: those of the builder: `help(kvision.models.NAME)`, or that of the network's package,
            lists them.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: the name is unknown, or a keyword's value does not fit.
        TypeError: a keyword is unknown.
    """
    return _lookup(_BUILDERS, name)(**keywords)


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """The networks by name, sorted.

    Args:
        pattern: a shell pattern that the names match, or a word that they contain: `list_models("lite")`.
        task: "classification", "segmentation", "detection", "forecasting", "sequence", "video" or
            "captioning", for the networks of that task alone.

    Raises:
        ValueError: no name contains the word, and the message has the nearest names; or there is no such
            task.
    """
    tasks = {info.task for info in _INFO.values()}
    if task is not None and task not in tasks:
        raise UserError(f"Unknown `task` {task!r}. {did_you_mean(str(task), tasks)}")
    names = [name for name, info in _INFO.items() if task in (None, info.task)]
    return sorted(select(pattern, names, "model"))


def info(name: str, /) -> ModelInfo:
    """The row of a network. Raises ValueError where the name is unknown."""
    return _lookup(_INFO, name)


def _lookup(table: dict, name: str):
    if not isinstance(name, str) or name not in table:
        raise UserError(f"Unknown model {name!r}. {did_you_mean(str(name), table)}")
    return table[name]
