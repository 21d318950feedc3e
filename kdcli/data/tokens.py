"""A split as one tokenizer sees it: tokens, their places in the text, and which segment they belong to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.data.task import Split
from kdcli.errors import Problem, RequestError

_CHUNK = 2048


@dataclass(frozen=True)
class TokenView:
    """Ragged tokens of n samples; sample i owns the flat positions ``bounds[i]:bounds[i + 1]``.

    Attributes:
        bounds: [n + 1], where each sample begins.
        ids: token ids, flat.
        type_ids: segment ids for the model, flat, or None where the model takes none.
        starts, ends: the character range of each token in its text, flat; equal where it covers none.
        regions: which part of the sample a token is in, flat: 0 specials before the first text, 1 the first text,
            2 specials behind it, 3 the second text, 4 specials behind that.
        pad_id: what padding is filled with.
        fingerprint: of the tokenizer; equal fingerprints give equal tokens.
    """

    bounds: NDArray[np.int64]
    ids: NDArray[np.int32]
    type_ids: NDArray[np.int8] | None
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    regions: NDArray[np.int8]
    pad_id: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per sample [n]."""
        return np.diff(self.bounds)


def fingerprint(tokenizer: Any) -> str:
    """What makes two tokenizers the same: vocabulary, rules and the inputs that the model takes."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}  # change with every use
    text = json.dumps(rules) + repr(sorted(tokenizer.model_input_names))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenise(split: Split, tokenizer: Any, max_length: int) -> TokenView:
    """Run a tokenizer over a split once; truncated to ``max_length`` tokens, not padded.

    Raises:
        RequestError: the tokenizer is not a fast one, so that it cannot say where its tokens stand in the text.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(Problem(str(tokenizer.name_or_path), "has no fast tokenizer", "a tokenizer.json beside the weights"))
    name = fingerprint(tokenizer)
    layout = _special_layout(tokenizer, split.pairs is not None)
    with_types = "token_type_ids" in tokenizer.model_input_names
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.int8]] = []
    spans: list[NDArray[np.int32]] = []
    regions: list[NDArray[np.int8]] = []
    lengths: list[int] = []
    for begin in range(0, len(split), _CHUNK):
        texts = list(split.texts[begin : begin + _CHUNK])
        pairs = None if split.pairs is None else list(split.pairs[begin : begin + _CHUNK])
        encoded = tokenizer(
            texts,
            pairs,
            truncation=True,
            max_length=max_length,
            return_offsets_mapping=True,
            return_token_type_ids=with_types,
            return_attention_mask=False,
        )
        for row, encoding in enumerate(encoded.encodings):
            ids.append(np.asarray(encoded["input_ids"][row], dtype=np.int32))
            if with_types:
                types.append(np.asarray(encoded["token_type_ids"][row], dtype=np.int8))
            spans.append(np.asarray(encoded["offset_mapping"][row], dtype=np.int32).reshape(-1, 2))
            regions.append(_regions(encoding.sequence_ids, *layout))
            lengths.append(len(ids[-1]))
    flat = np.concatenate(spans)
    return TokenView(
        bounds=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=np.concatenate(ids),
        type_ids=np.concatenate(types) if with_types else None,
        starts=np.ascontiguousarray(flat[:, 0]),
        ends=np.ascontiguousarray(flat[:, 1]),
        regions=np.concatenate(regions),
        pad_id=tokenizer.pad_token_id,
        fingerprint=name,
    )


def _special_layout(tokenizer: Any, paired: bool) -> tuple[int, int]:
    """How many special tokens stand before the first text, and between it and the second (or behind it)."""
    ids = tokenizer(["a"], ["a"] if paired else None, truncation=False, padding=False).encodings[0].sequence_ids
    first, last = ids.index(0), len(ids) - ids[::-1].index(0)
    second = ids.index(1) if paired else len(ids)
    return first, second - last


def _regions(sequence_ids: list[int | None], before: int, between: int) -> NDArray[np.int8]:
    """Region of each token, from its text, or for special tokens from their number, so that a text may be empty."""
    regions = np.empty(len(sequence_ids), dtype=np.int8)
    specials = 0
    for position, sequence in enumerate(sequence_ids):
        if sequence is not None:
            regions[position] = 2 * sequence + 1
        else:
            specials += 1
            regions[position] = 0 if specials <= before else 2 if specials <= before + between else 4
    return regions
