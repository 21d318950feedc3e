"""What a file writes in the column of targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_SHOWN = 5


class Located(Protocol):
    """Rows of a file."""

    @property
    def source(self) -> str:
        """The file, for messages."""

    @property
    def lines(self) -> Sequence[int]:
        """The line on which each row begins; for Parquet, the number of the row."""


@dataclass(frozen=True)
class Column:
    """One column of a table, as text.

    Attributes:
        source: the file, for messages.
        name: of the column.
        cells: its text in each row; none is empty.
        lines: the line on which each row begins; for Parquet, the number of the row.
    """

    source: str
    name: str
    cells: Sequence[str]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.cells)

    def place(self, row: int) -> str:
        """Where a row stands, as messages begin."""
        return f"{self.source}:{self.lines[row]}"


def where_rows(rows_of: Located, rows: Sequence[int]) -> str:
    """``lines 2, 42, …`` for some rows of a table."""
    source = rows_of.source
    word = "row" if source.lower().endswith(".parquet") or ":" in source.rpartition("/")[2] else "line"
    shown = ", ".join(str(rows_of.lines[row]) for row in rows[:_SHOWN])
    return f"{word}{'s' if len(rows) > 1 else ''} {shown}{', …' if len(rows) > _SHOWN else ''}"


def count_rows(count: int) -> str:
    """``1 row``, ``10 rows``."""
    return f"{count} row{'' if count == 1 else 's'}"
