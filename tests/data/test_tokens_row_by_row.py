"""Tokens made in chunks are those of the plain way: one sample after the other, one token after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from kdcli.data import tokens
from kdcli.data.task import Split
from kdcli.data.tokens import TokenView, fingerprint, tokenise
from kdcli.models.weight_loading import load_tokenizer
from tests.conftest import SHARED, needs_shared
from tests.data.two_tokenizers import HARD_TEXTS, any_text, random_texts, split_of

TEXTS = ["", *HARD_TEXTS, " \u200b ", "The film [SEP] was [MASK] great", "</s> <mask> <s>", "word " * 60]
PAIRS = [*reversed(HARD_TEXTS), "", "", "a plot", "story " * 60, ""]
SPECIALS = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}


def row_by_row(split: Split, tokenizer: Any, max_length: int) -> TokenView:
    """The plain way, in which every token's region is found by walking through its sample."""
    paired = split.pairs is not None
    probe = tokenizer(["a"], ["a"] if paired else None, truncation=False, padding=False).encodings[0].sequence_ids
    before, behind = probe.index(0), len(probe) - probe[::-1].index(0)
    between = (probe.index(1) if paired else len(probe)) - behind
    with_types = "token_type_ids" in tokenizer.model_input_names
    ids: list[int] = []
    types: list[int] = []
    spans: list[tuple[int, int]] = []
    regions: list[int] = []
    bounds = [0]
    for row in range(len(split)):
        found = tokenizer(
            [split.texts[row]],
            None if split.pairs is None else [split.pairs[row]],
            truncation=True,
            max_length=max_length,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        ids += found["input_ids"][0]
        types += found["token_type_ids"][0]
        spans += found["offset_mapping"][0]
        regions += _regions(found.encodings[0].sequence_ids, before, between)
        bounds.append(len(ids))
    return TokenView(
        np.asarray(bounds, np.int64),
        np.asarray(ids, np.int32),
        np.asarray(types, np.int8) if with_types else None,
        np.asarray([start for start, _ in spans], np.int32),
        np.asarray([end for _, end in spans], np.int32),
        np.asarray(regions, np.int8),
        tokenizer.pad_token_id,
        fingerprint(tokenizer),
    )


def _regions(sequence_ids: list[int | None], before: int, between: int) -> list[int]:
    regions, specials = [], 0
    for sequence in sequence_ids:
        specials += sequence is None
        around = 0 if specials <= before else 2 if specials <= before + between else 4
        regions.append(around if sequence is None else 2 * sequence + 1)
    return regions


def assert_same(view: TokenView, expected: TokenView) -> None:
    assert (view.pad_id, view.fingerprint) == (expected.pad_id, expected.fingerprint)
    for part in ("bounds", "ids", "type_ids", "starts", "ends", "regions"):
        found: NDArray[Any] | None
        wanted: NDArray[Any] | None
        found, wanted = getattr(view, part), getattr(expected, part)
        if found is None or wanted is None:
            assert found is wanted, part
        else:
            assert found.dtype == wanted.dtype, part
            np.testing.assert_array_equal(found, wanted, err_msg=part)


def _with_template(single: str, pair: str) -> Callable[[Any], Any]:
    def changed(tokenizer: Any) -> Any:
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        names = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        backend.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=names)
        return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIALS)

    return changed


def _with(**attributes: Any) -> Callable[[Any], Any]:
    def changed(tokenizer: Any) -> Any:
        tokenizer = copy.deepcopy(tokenizer)
        for name, value in attributes.items():
            setattr(tokenizer, name, value)
        return tokenizer

    return changed


LAYOUTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "bert": ("wordpiece", _with()),
    "roberta": ("byte_level", _with()),
    "no segments": ("wordpiece", _with(model_input_names=["input_ids", "attention_mask"])),
    "truncated on the left": ("wordpiece", _with(truncation_side="left")),
    "special tokens as text": ("byte_level", _with(split_special_tokens=True)),
    "specials behind alone": ("wordpiece", _with_template("$A [SEP]", "$A [SEP] $B:1 [SEP]:1")),
    "specials before alone": ("wordpiece", _with_template("[CLS] [CLS] $A", "[CLS] [CLS] $A [SEP] [SEP]:1 [SEP]:1 $B:1")),
    "no specials": ("wordpiece", _with_template("$A", "$A $B:1")),
}


@pytest.fixture(scope="session")
def layouts(wordpiece: Any, byte_level: Any) -> dict[str, Any]:
    plain = {"wordpiece": wordpiece, "byte_level": byte_level}
    return {name: change(plain[base]) for name, (base, change) in LAYOUTS.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
@pytest.mark.parametrize("max_length", [6, 17, 128])
def test_hard_texts(layouts: dict[str, Any], layout: str, pairs: list[str] | None, max_length: int) -> None:
    split = split_of(TEXTS, pairs)
    assert_same(tokenise(split, layouts[layout], max_length), row_by_row(split, layouts[layout], max_length))


@settings(deadline=None, database=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(any_text | st.just(""), any_text | st.just("")), min_size=1, max_size=5),
    paired=st.booleans(),
    layout=st.sampled_from(list(LAYOUTS)),
    max_length=st.integers(6, 40),
)
def test_any_texts(rows: list[tuple[str, str]], paired: bool, layout: str, max_length: int, layouts: dict[str, Any]) -> None:
    split = split_of([text for text, _ in rows], [pair for _, pair in rows] if paired else None)
    assert_same(tokenise(split, layouts[layout], max_length), row_by_row(split, layouts[layout], max_length))


@pytest.mark.parametrize("rows", [6, 7, 8])
def test_chunks_end_anywhere(wordpiece: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_CHUNK", 7)
    split = split_of(random_texts(2 * rows, 3), random_texts(2 * rows, 4))
    assert_same(tokenise(split, wordpiece, 12), row_by_row(split, wordpiece, 12))


def test_tokenizer_that_was_padding_and_cutting_before(wordpiece: Any) -> None:
    tokenizer = copy.deepcopy(wordpiece)
    tokenizer(["a", "b c d"], padding="max_length", truncation=True, max_length=5)
    split = split_of(HARD_TEXTS)
    assert_same(tokenise(split, tokenizer, 20), row_by_row(split, wordpiece, 20))


def test_split_without_samples_has_no_tokens(wordpiece: Any) -> None:
    view = tokenise(split_of([]), wordpiece, 8)
    assert len(view) == len(view.ids) == 0
    assert view.type_ids is not None
    assert view.bounds.tolist() == [0]


def test_arrays_cannot_be_written_to(wordpiece: Any) -> None:
    view = tokenise(split_of(["a film"]), wordpiece, 8)
    with pytest.raises(ValueError, match="read-only"):
        view.ids[0] = 1


@needs_shared
@pytest.mark.parametrize("name", ["minilm-l6", "minilm-bpe"])
def test_published_tokenizers(name: str) -> None:
    tokenizer = load_tokenizer(SHARED / "models" / name)
    for split in (split_of(TEXTS), split_of(TEXTS, PAIRS)):
        assert_same(tokenise(split, tokenizer, 24), row_by_row(split, tokenizer, 24))
