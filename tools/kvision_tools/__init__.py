"""Training, evaluation and prediction with the networks of kvision, from the shell and from Python."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvision_tools.config import TrainConfig as TrainConfig
    from kvision_tools.training import train as train

PLACES = {"TrainConfig": "config", "train": "training"}  # TensorFlow is imported only where it is needed


def __getattr__(name):
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__():
    return [*PLACES]
