"""Networks that several tests look at. A run builds each once: pytest puts the tests of one together."""

import pytest
from helpers import EACH, EVERY_BLOCK, built_without_memory, mostly_slow, tiny

import kvision


@pytest.fixture(scope="session", params=mostly_slow(kvision.list_models(task="classification"), *EVERY_BLOCK))
def built(request):
    """A network of the registry, without values."""
    return built_without_memory(request.param)


@pytest.fixture(scope="session", params=EACH)
def small(request):
    """A small network with random weights, not to be changed, and its name."""
    return request.param, tiny(request.param)
