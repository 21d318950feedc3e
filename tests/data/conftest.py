"""The tokenizers of the two tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdcli.models.weight_loading import load_tokenizer


@pytest.fixture(scope="session")
def wordpiece(tiny_bert: Path) -> Any:
    return load_tokenizer(tiny_bert)


@pytest.fixture(scope="session")
def byte_level(tiny_roberta: Path) -> Any:
    return load_tokenizer(tiny_roberta)
