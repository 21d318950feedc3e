"""Splits as a tokenizer sees them: the same as asking the tokenizer text by text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.data.task import Split
from kdcli.data.tokens import TokenView, fingerprint, tokenise
from kdcli.errors import RequestError
from tests.data.two_tokenizers import HARD_TEXTS, any_text, encoded, places, random_texts, split_of

PAIRS = list(reversed(HARD_TEXTS))
TOKENIZERS = ["wordpiece", "byte_level"]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def sample(view: TokenView, row: int) -> slice:
    return slice(view.bounds[row], view.bounds[row + 1])


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
@pytest.mark.parametrize("max_length", [9, 128])
def test_view_holds_what_the_tokenizer_says_of_each_sample(tokenizer: Any, pairs: list[str] | None, max_length: int) -> None:
    view = tokenise(split_of(HARD_TEXTS, pairs), tokenizer, max_length)
    assert len(view) == len(HARD_TEXTS)
    for row, text in enumerate(HARD_TEXTS):
        pair = None if pairs is None else pairs[row]
        alone = encoded(tokenizer, text, pair, max_length)
        here = sample(view, row)
        assert view.ids[here].tolist() == alone["input_ids"][0]
        assert view.lengths[row] == len(alone["input_ids"][0]) <= max_length
        if view.type_ids is not None:
            assert view.type_ids[here].tolist() == alone["token_type_ids"][0]
        spans = [(token.start, token.end) for token in places(tokenizer, text, pair, max_length)]
        assert list(zip(view.starts[here].tolist(), view.ends[here].tolist(), strict=True)) == spans
    assert view.pad_id == tokenizer.pad_token_id


def test_only_models_with_segments_get_segment_ids(wordpiece: Any, byte_level: Any) -> None:
    split = split_of(["a film"], ["a plot"])
    with_segments = tokenise(split, wordpiece, 32)
    assert with_segments.type_ids is not None
    assert with_segments.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert tokenise(split, byte_level, 32).type_ids is None


@pytest.mark.parametrize(
    ("name", "pair", "regions"),
    [
        ("wordpiece", None, [0, 1, 1, 2]),
        ("byte_level", None, [0, 1, 1, 2]),
        ("wordpiece", "a story", [0, 1, 1, 2, 3, 3, 4]),
        ("byte_level", "a story", [0, 1, 1, 2, 2, 3, 3, 4]),
    ],
)
def test_regions_tell_texts_and_what_stands_around_them(
    name: str, pair: str | None, regions: list[int], request: pytest.FixtureRequest
) -> None:
    split = split_of(["The film"], None if pair is None else ["The story"])
    assert tokenise(split, request.getfixturevalue(name), 32).regions.tolist() == regions


@pytest.mark.parametrize(
    ("name", "text", "pair", "regions"),
    [
        ("wordpiece", "", None, [0, 2]),
        ("byte_level", "", None, [0, 2]),
        ("wordpiece", " \u200b ", None, [0, 2]),
        ("wordpiece", "The film", "", [0, 1, 1, 2, 4]),
        ("byte_level", "The film", "", [0, 1, 1, 2, 2, 4]),
        ("wordpiece", "", "The film", [0, 2, 3, 3, 4]),
        ("byte_level", "", "The film", [0, 2, 2, 3, 3, 4]),
    ],
)
def test_regions_are_the_same_where_a_text_has_no_tokens(
    name: str, text: str, pair: str | None, regions: list[int], request: pytest.FixtureRequest
) -> None:
    split = split_of([text], None if pair is None else [pair])
    assert tokenise(split, request.getfixturevalue(name), 32).regions.tolist() == regions


@settings(deadline=None, database=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4), paired=st.booleans(), name=st.sampled_from(TOKENIZERS)
)
def test_regions_never_fall_and_follow_the_texts(
    rows: list[tuple[str, str]], paired: bool, name: str, wordpiece: Any, byte_level: Any
) -> None:
    tokenizer = wordpiece if name == "wordpiece" else byte_level
    split = split_of([text for text, _ in rows], [pair for _, pair in rows] if paired else None)
    view = tokenise(split, tokenizer, 24)
    assert view.bounds[0] == 0
    assert view.bounds[-1] == len(view.ids) == len(view.starts) == len(view.ends) == len(view.regions)
    for row in range(len(view)):
        regions = view.regions[sample(view, row)]
        assert (np.diff(regions) >= 0).all()
        texts = [token.text for token in places(tokenizer, rows[row][0], rows[row][1] if paired else None, 24)]
        assert [None if region % 2 == 0 else region // 2 for region in regions.tolist()] == texts


def test_long_splits_are_the_same_as_their_parts(wordpiece: Any) -> None:
    texts = random_texts(5000, 1)
    whole = tokenise(split_of(texts), wordpiece, 16)
    first, rest = tokenise(split_of(texts[:1000]), wordpiece, 16), tokenise(split_of(texts[1000:]), wordpiece, 16)
    np.testing.assert_array_equal(whole.ids, np.concatenate([first.ids, rest.ids]))
    np.testing.assert_array_equal(whole.lengths, np.concatenate([first.lengths, rest.lengths]))
    np.testing.assert_array_equal(whole.regions, np.concatenate([first.regions, rest.regions]))


def test_fingerprint_tells_tokenizers_apart_and_nothing_else(wordpiece: Any, byte_level: Any) -> None:
    assert fingerprint(wordpiece) == fingerprint(wordpiece)
    assert fingerprint(wordpiece) != fingerprint(byte_level)
    split: Split = split_of(["a film"])
    assert tokenise(split, wordpiece, 8).fingerprint == tokenise(split, wordpiece, 32).fingerprint == fingerprint(wordpiece)


def test_fingerprint_does_not_change_when_the_tokenizer_was_used(wordpiece: Any) -> None:
    before = fingerprint(wordpiece)
    wordpiece(["a", "b c d"], padding=True, truncation=True, max_length=8)
    tokenise(split_of(["a film"]), wordpiece, 8)
    assert fingerprint(wordpiece) == before


def test_tokenizer_that_cannot_say_where_its_tokens_stand_is_refused() -> None:
    class Slow:
        """A tokenizer without a Rust side."""

        is_fast = False
        name_or_path = "some/folder"

    with pytest.raises(RequestError, match="has no fast tokenizer") as caught:
        tokenise(split_of(["a"]), Slow(), 8)
    assert caught.value.problems[0].where == "some/folder"
