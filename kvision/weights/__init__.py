"""Published weights: which there are, loading them into networks, saving them back."""

from kvision.weights._classes import is_file, num_classes
from kvision.weights._find import find, list_weights, matching, rows_of
from kvision.weights._load import from_keras, load, save, state_dict

__all__ = [
    "find", "from_keras", "is_file", "list_weights", "load", "matching", "num_classes", "rows_of", "save",
    "state_dict",
]  # fmt: skip
