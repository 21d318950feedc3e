"""Tiny but real: two models of different architectures and tokenizers, and a task that they can learn in seconds."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the shared models and data are not here")

_GOOD = ["wonderful", "great", "splendid", "delightful", "charming", "brilliant"]
_BAD = ["awful", "boring", "dreadful", "tedious", "clumsy", "hopeless"]
_THINGS = ["film", "story", "plot", "actor", "scene", "music", "ending", "camera work"]


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Short reviews and their sentiment, by name."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        label = int(generator.integers(2))
        words = generator.choice(_GOOD if label else _BAD, 2, replace=False)
        things = generator.choice(_THINGS, 2, replace=False)
        rows.append((f"The {things[0]} was {words[0]}, and its {things[1]} {words[1]}!", "positive" if label else "negative"))
    return rows


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep for later runs, away from the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCLI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [text for text, _ in sentences(200, 7)]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train, dev and test as JSON lines."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (split, count) in enumerate({"train": 160, "dev": 60, "test": 40}.items()):
        lines = [json.dumps({"text": text, "label": label}) for text, label in sentences(count, seed)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """An untrained BERT of 4 layers and width 32, WordPiece."""
    return _tiny("bert", tmp_path_factory, texts, num_hidden_layers=4, hidden_size=32)


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """An untrained RoBERTa of 6 layers and width 48, byte-level BPE."""
    return _tiny("roberta", tmp_path_factory, texts, num_hidden_layers=6, hidden_size=48)


def _tiny(name: str, factory: pytest.TempPathFactory, texts: list[str], **size: int) -> Path:
    from kdcli.models.starter_teachers import write_starter_teacher

    folder = factory.mktemp("models") / name
    more = {"num_attention_heads": 4, "intermediate_size": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    write_starter_teacher(name, texts, folder, **size, **more)
    return folder
