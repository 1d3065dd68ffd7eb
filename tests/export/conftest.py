"""What all tests of export share."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_weights_each_time():
    """How near integers come depends on the weights."""
    keras.utils.set_random_seed(0)
