"""The two tiny tokenizers, texts that are hard to split, and where their tokens stand according to the tokenizer itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from kdcli.data.task import Split

HARD_TEXTS = [
    "The film was great!",
    "  The   film\twas \n great  ",
    "naïve café — déjà vu, Ångström",
    "e\u0301 a\u0308 combining",
    "🙂🙃 emoji 👩‍👩‍👧 family 🇩🇪",
    "日本語のテキスト and latin",
    "İstanbul ŞIŞ ß ﬁ ligature ½",
    "word\u00a0with\u2009odd\u3000spaces",
    "zero\u200bwidth \ufeffmark \u00adsoft",
    "control \x00 \x07 characters \x7f",
    "antidisestablishmentarianism " * 3,
    "!!!???... --- ((()))",
    "한국어 हिन्दी العربية",
    "a",
]


class Place(NamedTuple):
    """Where one token stands: in which text (None for special tokens), and from which to which character."""

    text: int | None
    start: int
    end: int


def split_of(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Split:
    return Split(list(texts), None if pairs is None else list(pairs), None, "here", "f")


def encoded(tokenizer: Any, text: str, pair: str | None, max_length: int = 512) -> Any:
    """One sample by itself, as a batch of one (a tokenizer takes a lone empty second text for none)."""
    pairs = None if pair is None else [pair]
    return tokenizer([text], pairs, truncation=True, max_length=max_length, return_offsets_mapping=True)


def places(tokenizer: Any, text: str, pair: str | None, max_length: int = 512) -> list[Place]:
    """Where the tokens of one sample stand."""
    found = encoded(tokenizer, text, pair, max_length)
    return [Place(of, *span) for of, span in zip(found.sequence_ids(0), found["offset_mapping"][0], strict=True)]


def ends_of_texts(tokens: Sequence[Place]) -> list[int]:
    """For each token how many texts have ended before it, counting special tokens as what follows a text."""
    seen, ended = -1, []
    for token in tokens:
        seen = seen if token.text is None else token.text
        ended.append(seen)
    return ended


def overlapping(token: Place, others: Sequence[Place]) -> list[int]:
    """The other side's tokens of the same text that share a character with this one."""
    return [
        row
        for row, other in enumerate(others)
        if other.text == token.text and max(token.start, other.start) < min(token.end, other.end)
    ]


def random_texts(count: int, seed: int, lengths: tuple[int, int] = (1, 12)) -> list[str]:
    """Words of the tiny task, joined into texts of unlike length."""
    generator = np.random.default_rng(seed)
    words = ["film", "story", "was", "wonderful", "awful,", "and", "its", "camera work", "naïve", "🙂", "unheard-of"]
    return [" ".join(generator.choice(words, generator.integers(*lengths))) for _ in range(count)]


_odd = st.text("abc é🙂\u0301\u200b\u00a0\n\t½ﬁ日.,-'", max_size=25) | st.text(max_size=15) | st.sampled_from(HARD_TEXTS)
"""Any text that both tokenizers find at least one word in."""
any_text = st.tuples(st.sampled_from(["film", "The", "x", "🙂 plot"]), st.sampled_from(["", " ", "  "]), _odd).map("".join)
