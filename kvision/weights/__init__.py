"""Published weights: which there are, loading them into networks, saving them back."""

from kvision.weights._fetch import is_file
from kvision.weights._find import find, fitting_row, list_weights, matching, rows_of
from kvision.weights._load import from_keras, load, num_classes, preprocess, save, state_dict

__all__ = [
    "find", "fitting_row", "from_keras", "is_file", "list_weights", "load", "matching", "num_classes",
    "preprocess", "rows_of", "save", "state_dict",
]  # fmt: skip
