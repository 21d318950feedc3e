"""Long texts are cut before they are tokenised, and the model sees the same tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kdcli.data.cutting import Cutter
from kdcli.data.tokens import tokenise
from kdcli.export.gate import Texts
from tests.data.two_tokenizers import HARD_TEXTS, encoded, places, split_of

LENGTH = 24


@pytest.fixture(params=["wordpiece right", "wordpiece left", "byte_level right", "byte_level left"])
def tokenizer(request: pytest.FixtureRequest) -> Iterator[Any]:
    name, side = request.param.split()
    found = request.getfixturevalue(name)
    before, found.truncation_side = found.truncation_side, side
    yield found
    found.truncation_side = before


def long_texts(seed: int, count: int = 12) -> list[str]:
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = [generator.choice(HARD_TEXTS) for _ in range(generator.choice([1, 30, 150]))]
        texts.append(generator.choice([" ", "\n", "   ", ""]).join(parts))
    return [*texts, " " * 5000 + "great", "great" + "\u200b" * 5000 + " film" * 50, "日本語" * 500]


def test_tokens_and_their_places_are_those_of_the_whole_text(tokenizer: Any) -> None:
    texts = long_texts(0)
    view = tokenise(split_of(texts), tokenizer, LENGTH)
    shorter = Cutter(tokenizer, LENGTH).samples(texts)
    assert sum(len(part) < len(text) for part, text in zip(shorter, texts, strict=True)) > 4
    for row, text in enumerate(texts):
        here = slice(view.bounds[row], view.bounds[row + 1])
        assert view.ids[here].tolist() == encoded(tokenizer, text, None, LENGTH)["input_ids"][0]
        spans = [(token.start, token.end) for token in places(tokenizer, text, None, LENGTH)]
        assert list(zip(view.starts[here].tolist(), view.ends[here].tolist(), strict=True)) == spans


def test_pairs_give_the_tokens_of_the_whole_pair(tokenizer: Any) -> None:
    texts, pairs, length = long_texts(1, 8), long_texts(2, 8)[::-1], 4 * LENGTH  # whole pairs take very long with fewer tokens
    view = tokenise(split_of(texts, pairs), tokenizer, length)
    gate = Texts.of(tokenizer, list(zip(texts, pairs, strict=True)), length)
    for row, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        here = slice(view.bounds[row], view.bounds[row + 1])
        expected = encoded(tokenizer, text, pair, length)["input_ids"][0]
        assert view.ids[here].tolist() == expected
        assert gate.rows[row]["input_ids"] == expected


@pytest.mark.parametrize("text", ["lovely film " * 400_000, " " * 5_000_000])
def test_five_million_characters_cost_no_more_than_a_million(text: str, wordpiece: Any) -> None:
    (part,) = Cutter(wordpiece, 128).samples([text])
    assert len(part) <= 1 << 20
    np.testing.assert_array_equal(
        tokenise(split_of([text]), wordpiece, 128).ids, tokenise(split_of([text[:100_000]]), wordpiece, 128).ids
    )
