"""Fixtures of all tests of export."""

from types import SimpleNamespace

import keras
import pytest
from helpers import completed

from kvision_export import convert


@pytest.fixture(autouse=True)
def _same_weights_each_time():
    """The fidelity of integer files depends on the weights."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _converters_that_have_imported_tensorflow(monkeypatch):
    """The processes in which files are converted begin quicker than new interpreters."""
    monkeypatch.setattr(convert, "subprocess", SimpleNamespace(run=completed))
