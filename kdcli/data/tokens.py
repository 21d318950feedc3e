"""A split as one tokenizer sees it: tokens, their places in the text, and which segment they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from kdcli.data.cutting import Cutter
from kdcli.data.task import Split
from kdcli.data.token_cache import Arrays, kept_or_made
from kdcli.errors import Problem, RequestError

_CHUNK = 1024
_CHARACTERS = 1 << 22
_TEXT_OF_SEQUENCE = {None: -1, 0: 0, 1: 1}


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
    rules = tokenizer.backend_tokenizer.to_str()
    rules = rules[rules.index('"added_tokens":') :]  # truncation and padding stand before them and change with every use
    text = rules + repr(sorted(tokenizer.model_input_names))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenise(split: Split, tokenizer: Any, max_length: int) -> TokenView:
    """Run a tokenizer over a split once; truncated to ``max_length`` tokens, not padded.

    The tokens of a large split are kept for the next run (:mod:`kdcli.data.token_cache`), whatever their texts are from.
    The arrays are not to be written to.

    Raises:
        RequestError: the tokenizer is not a fast one, so that it cannot say where its tokens stand in the text.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(Problem(str(tokenizer.name_or_path), "has no fast tokenizer", "a tokenizer.json beside the weights"))
    name = fingerprint(tokenizer)
    use = (str(max_length), tokenizer.truncation_side, str(tokenizer.split_special_tokens))
    arrays = kept_or_made(split, (name, *use, tokenizers.__version__), lambda: _run(split, tokenizer, max_length))
    for array in arrays.values():
        array.flags.writeable = False  # as those from the cache are
    return TokenView(
        bounds=arrays["bounds"],
        ids=arrays["ids"],
        type_ids=arrays.get("type_ids"),
        starts=arrays["starts"],
        ends=arrays["ends"],
        regions=arrays["regions"],
        pad_id=tokenizer.pad_token_id,
        fingerprint=name,
    )


def _run(split: Split, tokenizer: Any, max_length: int) -> Arrays:
    """The arrays of a :class:`TokenView`; chunk by chunk, so that the tokenizer's own objects never fill the memory."""
    layout = _special_layout(tokenizer, split.pairs is not None)
    cutter, backend = Cutter(tokenizer, max_length), tokenizer.backend_tokenizer
    parts = []
    for whole, samples in _chunks(split, cutter):
        chunk = _flattened(backend.encode_batch(samples), layout)
        if tokenizer.truncation_side == "left":
            _count_from_the_beginning(chunk, whole, samples)
        parts.append(chunk)
    arrays = {part: np.concatenate([chunk[part] for chunk in parts]) for part in parts[0]}
    arrays["bounds"] = np.concatenate([[0], np.cumsum(arrays.pop("lengths"))])
    if "token_type_ids" not in tokenizer.model_input_names:
        del arrays["type_ids"]
    return arrays


def _chunks(split: Split, cutter: Cutter) -> Iterator[tuple[list[Any], list[Any]]]:
    """Samples as they are and cut to what matters, some hundreds at a time, or fewer where they are long."""
    for begin in range(0, max(len(split), 1), _CHUNK):
        texts = list(split.texts[begin : begin + _CHUNK])
        whole = texts if split.pairs is None else list(zip(texts, split.pairs[begin : begin + _CHUNK], strict=True))
        samples = cutter.samples(whole)
        longest = max((len(sample) if split.pairs is None else sum(map(len, sample)) for sample in samples), default=0)
        step = max(1, min(_CHUNK, _CHARACTERS // max(longest, 1)))
        for first in range(0, max(len(samples), 1), step):
            yield whole[first : first + step], samples[first : first + step]


def _count_from_the_beginning(chunk: Arrays, whole: Sequence[Any], samples: Sequence[Any]) -> None:
    """Count the places of tokens from the beginning of the whole text, where the beginning was cut off."""
    pairs = zip(whole, samples, strict=True)
    cut = [(len(a) - len(b), 0) if isinstance(a, str) else (len(a[0]) - len(b[0]), len(a[1]) - len(b[1])) for a, b in pairs]
    shifts = np.array(cut, dtype=np.int32).reshape(-1, 2).repeat(chunk["lengths"], axis=0)
    shift = np.where(chunk["regions"] == 1, shifts[:, 0], np.where(chunk["regions"] == 3, shifts[:, 1], 0))
    chunk["starts"] = chunk["starts"] + shift
    chunk["ends"] = chunk["ends"] + shift


def _flattened(encodings: Sequence[Any], layout: tuple[int, int]) -> Arrays:
    """What a chunk's encodings hold, flat, and their ``lengths``."""
    lengths = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
    size = int(lengths.sum())

    def flat(part: str, dtype: type[np.int32 | np.int8]) -> NDArray[Any]:
        return np.fromiter(chain.from_iterable(map(attrgetter(part), encodings)), dtype=dtype, count=size)

    pairs = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
    spans = np.fromiter(pairs, dtype=np.int32, count=2 * size).reshape(-1, 2)
    sequences = chain.from_iterable(encoding.sequence_ids for encoding in encodings)
    text = np.fromiter(map(_TEXT_OF_SEQUENCE.__getitem__, sequences), dtype=np.int8, count=size)
    return {
        "lengths": lengths,
        "ids": flat("ids", np.int32),
        "type_ids": flat("type_ids", np.int8),
        "starts": spans[:, 0],
        "ends": spans[:, 1],
        "regions": _regions(text, lengths, *layout),
    }


def _special_layout(tokenizer: Any, paired: bool) -> tuple[int, int]:
    """How many special tokens stand before the first text, and between it and the second (or behind it)."""
    ids = tokenizer(["a"], ["a"] if paired else None, truncation=False, padding=False).encodings[0].sequence_ids
    first, last = ids.index(0), len(ids) - ids[::-1].index(0)
    second = ids.index(1) if paired else len(ids)
    return first, second - last


def _regions(text: NDArray[np.int8], lengths: NDArray[np.int64], before: int, between: int) -> NDArray[np.int8]:
    """Region of each token, from its text, or for special tokens from their number, so that a text may be empty.

    Args:
        text: 0 or 1 for the tokens of the first or second text, −1 for special tokens, flat.
        lengths: tokens per sample.
        before: how many special tokens stand before the first text.
        between: how many stand behind it, before the second text or the end.
    """
    special = text < 0
    total = np.concatenate([[0], np.cumsum(special)])
    number = total[1:] - np.repeat(total[np.cumsum(lengths) - lengths], lengths)  # counted anew in each sample, from 1
    around = np.where(number <= before, 0, np.where(number <= before + between, 2, 4))
    return np.where(special, around, 2 * text + 1).astype(np.int8)
