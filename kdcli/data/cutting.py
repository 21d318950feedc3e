"""The part of a text that a model can see, so that no tokenizer goes through 100 MB for the sake of 128 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PER_TOKEN = 16
"""Characters per token from which on a text is cut; tokens of words have four or five."""
LONGEST = 1 << 20
"""Characters that are looked at in any case, for texts of which tokenizers make nothing, such as a million spaces."""
_PER_TOKEN_IN_PAIRS = 4
_GROWTH = 8
_KEPT = 3


class Cutter:
    """Cuts texts so that a tokenizer makes the same first (or last) ``max_length`` tokens of them.

    What is left of a text makes about three times as many tokens as are kept, so that those which are kept lie far from the
    cut. It is found by tokenising a part of the text; a longer one where that makes too few, up to :data:`LONGEST`
    characters. Pairs are cut earlier: a tokenizer that cuts both texts makes every combination of what is left over.

    Args:
        tokenizer: a fast tokenizer; it is left set to cut at ``max_length`` tokens and not to pad.
        max_length: tokens that are kept.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
        self._backend.encode_special_tokens = tokenizer.split_special_tokens
        self._max_length = max_length
        self._left = tokenizer.truncation_side == "left"

    def samples(self, samples: Sequence[Any]) -> list[Any]:
        """Texts, or pairs of texts."""
        return [self.text(sample) if isinstance(sample, str) else self.pair(*sample) for sample in samples]

    def text(self, text: str) -> str:
        """The part of a text that matters."""
        return self._cut(text, _KEPT) if len(text) > PER_TOKEN * self._max_length else text

    def pair(self, first: str, second: str) -> tuple[str, str]:
        """Two texts that are cut together; the one with more tokens keeps more, since a tokenizer cuts that one first."""
        if max(len(first), len(second)) <= _PER_TOKEN_IN_PAIRS * self._max_length:
            return first, second
        more = self._tokens(first) > self._tokens(second)
        return self._cut(first, _KEPT + more), self._cut(second, _KEPT + (not more))

    def _tokens(self, text: str) -> int:
        encoding = self._backend.encode(self._part(text, LONGEST), add_special_tokens=False)
        return sum(map(len, [encoding, *encoding.overflowing]))

    def _cut(self, text: str, kept: int) -> str:
        size = PER_TOKEN * self._max_length
        while True:
            part = self._part(text, size)
            beyond = self._backend.encode(part).overflowing
            if len(beyond) >= kept:
                places = [place for span in beyond[kept - 2].offsets for place in span if span != (0, 0)]
                return part[min(places) :] if self._left else part[: max(places)]
            if len(part) == len(text) or size == LONGEST:
                return part
            size = min(_GROWTH * size, LONGEST)

    def _part(self, text: str, size: int) -> str:
        """About so many characters from the side that is kept, whole words where there are spaces."""
        if size >= len(text):
            return text
        if self._left:
            part = text[len(text) - size :]
            words = part.split(maxsplit=1)
            return words[1] if len(words) > 1 and len(words[1]) > size // 2 else part
        part = text[:size]
        words = part.rsplit(maxsplit=1)
        return words[0] if len(words) > 1 and len(words[0]) > size // 2 else part
