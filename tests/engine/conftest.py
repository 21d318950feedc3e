"""What makes many small trainings quick."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.phases import Material


@pytest.fixture(scope="package", autouse=True)
def imports_are_not_collected() -> Iterator[None]:
    """A stage ends with a full garbage collection; most of its time went to what the libraries have made, which stays."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def material(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Material:
    """What small phases are made from."""
    return Material(tiny_bert, tiny_roberta, tiny_data)
