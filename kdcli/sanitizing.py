"""Text from outside that is shown and does nothing."""

from __future__ import annotations

import re

# C0 but for tab and line feed, DEL and C1, halves of characters, and what turns the direction of writing
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text with U+FFFD for each character that a terminal, a page or a table would not show but obey."""
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)
