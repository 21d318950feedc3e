"""The alignment of two tokenizers against a look at every pair of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.data.alignment import Alignment, align
from kdcli.data.tokens import tokenise
from kdcli.models.weight_loading import load_tokenizer
from tests.conftest import SHARED, needs_shared
from tests.data.two_tokenizers import HARD_TEXTS, any_text, encoded, ends_of_texts, overlapping, places, split_of

DIRECTIONS = ["wordpiece student", "byte-level student"]
quick = settings(deadline=None, database=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])


def ordered(direction: str, wordpiece: Any, byte_level: Any) -> tuple[Any, Any]:
    return (wordpiece, byte_level) if direction == DIRECTIONS[0] else (byte_level, wordpiece)


def runs(
    student: Any, teacher: Any, texts: Sequence[str], pairs: Sequence[str] | None, limits: tuple[int, int]
) -> list[list[list[int]]]:
    """For each sample and student token the teacher tokens in its run."""
    split = split_of(texts, pairs)
    view = tokenise(split, student, limits[0])
    found = align(view, tokenise(split, teacher, limits[1]))
    assert len(found.first) == len(found.last) == len(view.ids)
    flat = [list(range(first, last)) for first, last in zip(found.first, found.last, strict=True)]
    return [flat[view.bounds[row] : view.bounds[row + 1]] for row in range(len(view))]


def expected_runs(student: Any, teacher: Any, text: str, pair: str | None, limits: tuple[int, int]) -> list[list[int]]:
    """By looking at every pair of tokens: a shared character, or specials after the same number of texts."""
    own, other = places(student, text, pair, limits[0]), places(teacher, text, pair, limits[1])
    own_ended, other_ended = ends_of_texts(own), ends_of_texts(other)
    return [
        overlapping(token, other)
        if token.text is not None
        else [there for there, ended in enumerate(other_ended) if other[there].text is None and ended == own_ended[row]]
        for row, token in enumerate(own)
    ]


def check(
    student: Any, teacher: Any, texts: Sequence[str], pairs: Sequence[str] | None, limits: tuple[int, int] = (512, 512)
) -> None:
    found = runs(student, teacher, texts, pairs, limits)
    for row, text in enumerate(texts):
        pair = None if pairs is None else pairs[row]
        assert found[row] == expected_runs(student, teacher, text, pair, limits), (text, pair)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("paired", [False, True], ids=["single", "pairs"])
def test_hard_texts_meet_by_shared_characters(direction: str, paired: bool, wordpiece: Any, byte_level: Any) -> None:
    student, teacher = ordered(direction, wordpiece, byte_level)
    check(student, teacher, HARD_TEXTS, list(reversed(HARD_TEXTS)) if paired else None)


@quick
@given(
    rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4),
    paired=st.booleans(),
    direction=st.sampled_from(DIRECTIONS),
)
def test_any_texts_meet_by_shared_characters(
    rows: list[tuple[str, str]], paired: bool, direction: str, wordpiece: Any, byte_level: Any
) -> None:
    student, teacher = ordered(direction, wordpiece, byte_level)
    check(student, teacher, [text for text, _ in rows], [pair for _, pair in rows] if paired else None)


@quick
@given(
    texts=st.lists(any_text, min_size=1, max_size=3),
    limits=st.tuples(st.integers(4, 14), st.integers(4, 14)),
    direction=st.sampled_from(DIRECTIONS),
)
def test_truncated_texts_meet_by_shared_characters(
    texts: list[str], limits: tuple[int, int], direction: str, wordpiece: Any, byte_level: Any
) -> None:
    student, teacher = ordered(direction, wordpiece, byte_level)
    check(student, teacher, texts, None, limits)


def names(tokenizer: Any, text: str, pair: str | None = None) -> list[str]:
    found: list[str] = tokenizer.convert_ids_to_tokens(encoded(tokenizer, text, pair)["input_ids"][0])
    return found


def named_runs(student: Any, teacher: Any, text: str, pair: str | None = None) -> list[tuple[str, list[str]]]:
    (found,) = runs(student, teacher, [text], None if pair is None else [pair], (512, 512))
    there = names(teacher, text, pair)
    return [(name, [there[place] for place in run]) for name, run in zip(names(student, text, pair), found, strict=True)]


def test_special_tokens_of_one_text_meet_by_place(wordpiece: Any, byte_level: Any) -> None:
    found = named_runs(wordpiece, byte_level, "a film")
    assert found[0] == ("[CLS]", ["<s>"])
    assert found[-1] == ("[SEP]", ["</s>"])
    back = named_runs(byte_level, wordpiece, "a film")
    assert back[0] == ("<s>", ["[CLS]"])
    assert back[-1] == ("</s>", ["[SEP]"])


def test_separator_of_each_text_of_a_pair_meets_its_own(wordpiece: Any, byte_level: Any) -> None:
    found = named_runs(wordpiece, byte_level, "film", "plot")
    assert [run for name, run in found if name == "[SEP]"] == [["</s>", "</s>"], ["</s>"]]
    (places_of,) = runs(wordpiece, byte_level, ["film"], ["plot"], (64, 64))
    there = names(byte_level, "film", "plot")
    ends = [place for place, name in enumerate(there) if name == "</s>"]
    assert [run for (name, _), run in zip(found, places_of, strict=True) if name == "[SEP]"] == [ends[:2], ends[2:]]
    back = named_runs(byte_level, wordpiece, "film", "plot")
    assert [run for name, run in back if name == "</s>"] == [["[SEP]"]] * 3


def test_special_tokens_meet_by_place_where_a_text_is_empty(wordpiece: Any, byte_level: Any) -> None:
    assert named_runs(wordpiece, byte_level, "") == [("[CLS]", ["<s>"]), ("[SEP]", ["</s>"])]
    assert named_runs(byte_level, wordpiece, "") == [("<s>", ["[CLS]"]), ("</s>", ["[SEP]"])]


def test_special_tokens_meet_by_place_where_one_tokenizer_finds_nothing_in_the_text(wordpiece: Any, byte_level: Any) -> None:
    assert named_runs(wordpiece, byte_level, "   ") == [("[CLS]", ["<s>"]), ("[SEP]", ["</s>"])]
    back = named_runs(byte_level, wordpiece, "   ")
    assert back[0] == ("<s>", ["[CLS]"])
    assert back[-1] == ("</s>", ["[SEP]"])
    assert [run for _, run in back[1:-1]] == [[]] * (len(back) - 2)


def test_special_tokens_meet_by_place_where_the_second_text_is_empty(wordpiece: Any, byte_level: Any) -> None:
    found = named_runs(wordpiece, byte_level, "film", "")
    assert [run for name, run in found if name == "[SEP]"] == [["</s>", "</s>"], ["</s>"]]


def test_second_text_does_not_meet_the_first_even_where_they_are_equal(wordpiece: Any, byte_level: Any) -> None:
    (found,) = runs(wordpiece, byte_level, ["film film"], ["film film"], (64, 64))
    other = places(byte_level, "film film", "film film")
    for token, run in zip(places(wordpiece, "film film", "film film"), found, strict=True):
        assert {other[place].text for place in run} == {token.text}


def test_what_the_teacher_truncated_has_an_empty_run(wordpiece: Any, byte_level: Any) -> None:
    text = "The film story plot actor scene music"
    (found,) = runs(wordpiece, byte_level, [text], None, (64, 5))
    assert [bool(run) for run in found[:4]] == [True] * 4
    assert found[-1], "what closes the text meets what closes it, truncated or not"
    assert not any(found[4:-1])


def test_what_a_normaliser_dropped_has_an_empty_run(wordpiece: Any, byte_level: Any) -> None:
    found = named_runs(byte_level, wordpiece, "a \u0301 b")
    kept = {"<s>": ["[CLS]"], "a": ["a"], "</s>": ["[SEP]"]}
    assert {name: run for name, run in found if name in kept} == kept
    assert sum(not run for _, run in found) >= 2


def test_unmatched_is_the_fraction_of_tokens_without_a_counterpart(wordpiece: Any, byte_level: Any) -> None:
    split = split_of(["The film story plot actor scene music"])
    found = align(tokenise(split, wordpiece, 64), tokenise(split, byte_level, 5))
    empty = int((found.first == found.last).sum())
    assert empty == len(found.first) - 5
    assert found.unmatched == pytest.approx(empty / len(found.first))
    nothing = np.zeros(0, dtype=np.int32)
    assert Alignment(nothing, nothing, identity=False).unmatched == 0.0


@pytest.mark.parametrize("paired", [False, True], ids=["single", "pairs"])
def test_same_tokenizer_is_the_identity(paired: bool, wordpiece: Any) -> None:
    split = split_of(HARD_TEXTS, list(reversed(HARD_TEXTS)) if paired else None)
    view = tokenise(split, wordpiece, 64)
    found = align(view, tokenise(split, wordpiece, 64))
    assert found.identity
    own = np.concatenate([np.arange(length) for length in view.lengths])
    np.testing.assert_array_equal(found.first, own)
    np.testing.assert_array_equal(found.last, own + 1)
    assert found.unmatched == 0.0


def test_same_tokenizer_with_another_length_is_not_taken_for_the_identity(wordpiece: Any) -> None:
    texts = ["film story plot actor scene", "film"]
    found = align(tokenise(split_of(texts), wordpiece, 64), tokenise(split_of(texts), wordpiece, 4))
    assert not found.identity
    check(wordpiece, wordpiece, texts, None, (64, 4))


def test_unlike_tokenizers_are_not_the_identity_even_where_their_tokens_coincide(wordpiece: Any, byte_level: Any) -> None:
    split = split_of(["film"])
    assert not align(tokenise(split, wordpiece, 8), tokenise(split, byte_level, 8)).identity


@needs_shared
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("folder", "columns"), [("SST-2", ("sentence",)), ("RTE", ("sentence1", "sentence2"))])
def test_real_tokenizers_meet_by_shared_characters_on_real_text(direction: str, folder: str, columns: tuple[str, ...]) -> None:
    lines = (SHARED / "data" / "glue" / folder / "dev.tsv").read_text(encoding="utf-8").split("\n")
    places_of = [lines[0].split("\t").index(column) for column in columns]
    rows = [[line.split("\t")[place] for place in places_of] for line in lines[1:201]]
    student, teacher = ordered(direction, *(load_tokenizer(SHARED / "models" / name) for name in ("minilm-l6", "minilm-bpe")))
    texts, pairs = [row[0] for row in rows], [row[1] for row in rows] if len(columns) == 2 else None
    assert len(texts) == 200
    check(student, teacher, texts, pairs, (64, 64))
