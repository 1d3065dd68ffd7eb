"""Vision networks for Keras 3, from the architecture to a file for a phone."""

import importlib.util
import sys
from pathlib import Path

__version__ = "0.1.0"

if Path(sys.argv[0]).name.startswith("kvision-"):
    # Keras and TensorFlow take seconds to import, and a command needs them only after its flags are parsed.
    def __getattr__(name):
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"kvision.{name}"):
            return importlib.import_module(f"kvision.{name}")
        return getattr(importlib.import_module("kvision._public"), name)
else:
    from kvision._public import *  # noqa: F403
    from kvision._public import __all__ as __all__

    def __dir__():
        return [*__all__, "__version__"]
