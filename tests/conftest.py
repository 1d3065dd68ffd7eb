"""Settings of all tests."""

import gc


def pytest_collection_finish():
    """Spares the garbage collector what was imported: a tenth of the time of tests that build networks."""
    gc.collect()
    gc.freeze()
