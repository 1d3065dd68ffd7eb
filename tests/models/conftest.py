"""Networks that several tests look at. A run builds each once: pytest puts the tests of one together."""

import pytest
from helpers import EACH, built_without_memory, tiny

import kvision


@pytest.fixture(scope="session", params=kvision.list_models(task="classification"))
def built(request):
    """A network of the registry, without values."""
    return built_without_memory(request.param)


@pytest.fixture(scope="session", params=EACH)
def small(request):
    """A small network with random weights, not to be changed, and its name."""
    return request.param, tiny(request.param)
