"""A file's rows as columns of text, and what is to be said about them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdcli.errors import Problem, RequestError

MOST_COLUMNS = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_LINES = 5


@dataclass
class Columns:
    """A table as text.

    Attributes:
        cells: column name → its cells.
        source: the file, for messages.
        fingerprint: first 16 hex digits of the file's sha256.
        lines: the line of the file on which each row begins; for Parquet, the number of the row.
        skipped: lines with the wrong number of fields that were left out.
        missing: column → the rows (from 0) without a value there; their cells are empty text.
        structured: column → the rows whose cell is a list or an object, not a single value; their cells are its JSON.
        notes: what the user should know about how the file was read.
        hint: what to try where no column has a name that can be used.
    """

    cells: dict[str, list[str]]
    source: str
    fingerprint: str
    lines: list[int]
    skipped: list[int] = field(default_factory=list)
    missing: dict[str, list[int]] = field(default_factory=dict)
    structured: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hint: str = ""

    def __len__(self) -> int:
        return len(self.lines)


class TableBuilder:
    """Columns from records with names, one by one; a name that comes late is a missing value in the rows before it.

    Args:
        path: the file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[str, list[str]] = {}
        self._missing: dict[str, list[int]] = {}
        self._structured: dict[str, list[int]] = {}
        self._lines: list[int] = []
        self._mended: list[int] = []

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def last_line(self) -> int:
        """Where the last row begins; 0 before the first."""
        return self._lines[-1] if self._lines else 0

    def add(self, line: int, record: Mapping[str, object], *, surrogates: bool = True) -> None:
        """One row.

        Args:
            line: where it begins.
            record: name → value of any kind.
            surrogates: whether halves of surrogate pairs are to be looked for.

        Raises:
            RequestError: names that are the same once they are mended, or too many of them.
        """
        texts = {name: as_text(value) for name, value in record.items()}
        if surrogates:
            mended = {whole(name): whole(text) for name, text in texts.items()}
            if mended != texts:
                if len(mended) < len(texts):
                    raise RequestError(Problem(f"{self._path}:{line}", "two names are the same but for halves of characters"))
                self._mended.append(line)
                record = {whole(name): value for name, value in record.items()}
                texts = mended
        self._append(line, record, texts)

    def _append(self, line: int, record: Mapping[str, object], texts: Mapping[str, str]) -> None:
        row = len(self._lines)
        for name, text in texts.items():
            column = self._cells.get(name)
            if column is None:
                column = self._begin(name, row, line)
            column.append(text)
            value = record[name]
            if is_missing(value):
                self._missing.setdefault(name, []).append(row)
            elif isinstance(value, list | tuple | dict):
                self._structured.setdefault(name, []).append(row)
        if len(texts) < len(self._cells):
            for name in self._cells.keys() - texts.keys():
                self._cells[name].append("")
                self._missing.setdefault(name, []).append(row)
        self._lines.append(line)

    def _begin(self, name: str, row: int, line: int) -> list[str]:
        if len(self._cells) == MOST_COLUMNS:
            raise RequestError(
                Problem(
                    f"{self._path}:{line}", f"the file has more than {MOST_COLUMNS} columns", "the same few names in each row"
                )
            )
        if row:
            self._missing[name] = list(range(row))
        return self._cells.setdefault(name, [""] * row)

    def columns(self, notes: Iterable[str] = ()) -> Columns:
        """All rows."""
        said = list(notes)
        if self._mended:
            said.append(
                f"{count_of(len(self._mended), 'row')} with half of a surrogate pair, which is no character:"
                f" replaced by U+FFFD ({named_lines(self._mended)})"
            )
        source, name = str(self._path), fingerprint(self._path)
        return Columns(self._cells, source, name, self._lines, [], self._missing, self._structured, said)


def is_missing(cell: object) -> bool:
    """Whether a cell holds no value: None, NaN or blank text."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())


def as_text(cell: object) -> str:
    """A cell as text; empty where it has no value, JSON where it is a list or an object."""
    if isinstance(cell, str):
        return cell
    if is_missing(cell):
        return ""
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, list | tuple | dict) else str(cell)


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no tokenizer and no file takes."""
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", text)


def named_lines(lines: Sequence[int]) -> str:
    """The first few lines in words.

    >>> named_lines([2]), named_lines([2, 42]), named_lines(range(2, 12))
    ('line 2', 'lines 2, 42', 'lines 2, 3, 4, 5, 6, …')
    """
    shown = ", ".join(str(line) for line in lines[:_MOST_LINES])
    return f"line{'s' if len(lines) > 1 else ''} {shown}{', …' if len(lines) > _MOST_LINES else ''}"


def count_of(number: int, what: str) -> str:
    """A number of things.

    >>> count_of(1, "row"), count_of(2, "row")
    ('1 row', '2 rows')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def fingerprint(path: Path) -> str:
    """The first 16 hex digits of the file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
