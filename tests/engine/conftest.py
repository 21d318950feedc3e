"""What makes many small trainings quick."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def imports_are_not_collected() -> Iterator[None]:
    """A stage ends with a full garbage collection; most of its time went to what the libraries have made, which stays."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
