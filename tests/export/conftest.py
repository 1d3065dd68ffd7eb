"""Fixtures of all tests of export."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_weights_each_time():
    """The fidelity of integer files depends on the weights."""
    keras.utils.set_random_seed(0)
