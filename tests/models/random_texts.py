"""Texts of random tokens, for models that have no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdcli.data.batching import Samples
from kdcli.data.tokens import TokenView
from kdcli.models.student import STUDENT


def random_view(tokens: Sequence[int], rows: int, pad_id: int, seed: int = 0) -> TokenView:
    """Texts of three to nine of these tokens; all of the tokens occur."""
    generator = np.random.default_rng(seed)
    bounds = np.concatenate([[0], np.cumsum(generator.integers(3, 10, rows))])
    ids = generator.choice(np.array(tokens), bounds[-1]).astype(np.int32)
    ids[generator.permutation(len(ids))[: len(tokens)]] = tokens
    places = np.arange(len(ids), dtype=np.int32)
    regions = np.ones(len(ids), dtype=np.int8)
    return TokenView(bounds, ids, None, places, places + 1, regions, pad_id, f"random {seed}")


def random_samples(view: TokenView, classes: int = 2, models: Sequence[str] = (STUDENT,)) -> Samples:
    """Texts with labels, alike for all models."""
    labels = np.random.default_rng(1).integers(0, classes, len(view))
    return Samples(labels, dict.fromkeys(models, view), {}, models[0])
