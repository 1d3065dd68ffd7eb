"""Training, evaluation and prediction with the networks of kvision, from the shell and from Python."""

import importlib

__all__ = ["TrainConfig", "train"]
PLACES = {"TrainConfig": "config", "train": "training"}  # TensorFlow is imported only where it is needed


def __getattr__(name):
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
