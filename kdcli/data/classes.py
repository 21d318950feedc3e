"""From the labels that files write to classes: which there are, which are one, and what is no class at all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from kdcli.data.table import Columns
from kdcli.data.values import count_rows, where_rows
from kdcli.errors import Problem, RequestError, did_you_mean

_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d{1,3})?")
_MOST_DECIMAL_CLASSES = 20
_MANY_CLASSES = 1000
_FEW_ROWS = 10
_REGRESSION = "numbers as targets (regression) are not yet a kind of task"


def same_label(value: str) -> object:
    """What two ways of writing one class have in common: the number, or the letters without case, blanks and composition.

    >>> same_label("1.0") == same_label("01"), same_label("Spam ") == same_label("spam")
    (True, True)
    """
    plain = value.strip()
    if _NUMBER.fullmatch(plain):
        return Decimal(plain.replace(",", ".")).normalize()
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", plain).casefold()).split())


@dataclass
class Classes:
    """The classes of a task, and how they are found by what a file writes.

    Attributes:
        names: class names, in order.
        written: what the files write for each class.
        open: whether labels may be written otherwise in a further file (``1.0`` for ``1``).
    """

    names: tuple[str, ...]
    written: tuple[str, ...]
    open: bool = True
    _places: dict[str, int] = field(init=False)
    _alike: dict[object, int] = field(init=False)

    def __post_init__(self) -> None:
        self._places = {name: row for row, name in enumerate(self.names)} | {raw: row for row, raw in enumerate(self.written)}
        keys = Counter(same_label(raw) for raw in self.written)
        self._alike = {same_label(raw): row for row, raw in enumerate(self.written) if keys[same_label(raw)] == 1}

    def find(self, value: str) -> int | None:
        """The class that a file means by ``value``, or None."""
        exact = self._places.get(value)
        return exact if exact is not None or not self.open else self._alike.get(same_label(value))

    def is_exact(self, value: str) -> bool:
        """Whether the class is written as in the first file."""
        return value in self._places

    def indices(self, cells: Sequence[str], refuse: Callable[[int], Exception]) -> NDArray[np.int64]:
        """Class indices [n] of what a file writes; ``refuse`` makes the error about a row that is of no class."""
        found: dict[str, int | None] = {value: self.find(value) for value in set(cells)}
        labels = np.empty(len(cells), dtype=np.int64)
        for row, value in enumerate(cells):
            place = found[value]
            if place is None:
                raise refuse(row)
            labels[row] = place
        return labels

    def otherwise_written(self, cells: Iterable[str]) -> list[str]:
        """One sentence per class that a further file writes otherwise."""
        counts = Counter(value for value in cells if not self.is_exact(value))
        found = []
        for value, count in counts.items():
            place = self.find(value)
            if place is not None:
                found.append(f"{value!r} is taken as class {self.written[place]!r} ({count_rows(count)})")
        return found


def classes_of_cells(columns: Columns, label: str) -> Classes:
    """The classes that a column holds, in alphabetical order, or in that of their numbers.

    Raises:
        RequestError: one class is written in two ways.
    """
    cells = columns.cells[label]
    values = set(cells)
    _refuse_two_spellings(columns, label, values)
    ordered = sorted(values, key=lambda one: (_number(one), one)) if all(map(_is_number, values)) else sorted(values)
    return Classes(tuple(ordered), tuple(ordered))


def check_trainable(columns: Columns, label: str) -> list[str]:
    """Whether a column of labels is something that a classifier can be trained on; notes on what is odd about it.

    Raises:
        RequestError: one class alone, many different decimal numbers, a class for every row.
    """
    cells = columns.cells[label]
    counts = Counter(cells)
    if len(counts) < 2:
        raise RequestError(
            Problem(
                columns.source,
                f"all {len(cells)} rows have the same label",
                "at least two classes",
                repr(next(iter(counts))),
                "--label-column NAME, if another column holds the classes",
            )
        )
    refuse_regression(columns, label)
    if len(counts) == len(cells) and len(cells) >= _FEW_ROWS:
        raise RequestError(
            Problem(
                columns.source,
                f"each of the {len(cells)} rows has a label of its own in column {label!r}",
                "classes that several rows share",
                ", ".join(map(repr, cells[:3])) + ", …",
                "--label-column NAME, if another column holds the classes",
            )
        )
    notes = []
    if len(counts) > _MANY_CLASSES or (len(cells) >= _FEW_ROWS and len(counts) > len(cells) / 2):
        notes.append(
            f"{columns.source}: {len(counts)} classes in {len(cells)} rows of column {label!r}; is it a column of classes?"
        )
    single = [value for value, count in counts.items() if count == 1]
    if single and len(cells) >= _FEW_ROWS:
        notes.append(f"{columns.source}: {_listed(single)} with one row each")
    return notes


def refuse_regression(columns: Columns, label: str) -> None:
    """Refuse labels that look like measured numbers.

    Raises:
        RequestError: many different numbers, some of which are not whole.
    """
    values = {value.strip() for value in columns.cells[label]}
    if not all(map(_is_number, values)):
        return
    numbers = {_number(value) for value in values}
    whole = all(number == number.to_integral_value() for number in numbers)
    if not whole and (len(numbers) > _MOST_DECIMAL_CLASSES or 2 * len(numbers) > max(len(columns), _FEW_ROWS)):
        raise RequestError(
            Problem(
                columns.source,
                f"column {label!r} holds {len(numbers)} different numbers: it looks like regression, and {_REGRESSION}",
                "classes",
                ", ".join(columns.cells[label][:4]) + ", …",
                "--label-column NAME, if another column holds the classes",
            )
        )


def unknown_label(columns: Columns, label: str, row: int, known: Sequence[str]) -> RequestError:
    """The error about a label that is none of the classes."""
    value = columns.cells[label][row]
    decimal = _is_number(value) and _number(value) != _number(value).to_integral_value() and all(map(_is_number, known))
    return RequestError(
        Problem(
            f"{columns.source}:{columns.lines[row]}",
            f"unknown label {value!r} in column {label!r}" + (f"; {_REGRESSION}" if decimal else ""),
            "one of " + ", ".join(known[:20]) + ("…" if len(known) > 20 else ""),
            remedy="" if _is_number(value) else did_you_mean(value, known),
        )
    )


def _refuse_two_spellings(columns: Columns, label: str, values: Iterable[str]) -> None:
    by_key: dict[object, list[str]] = {}
    for value in sorted(values):
        by_key.setdefault(same_label(value), []).append(value)
    spelled = next((group for group in by_key.values() if len(group) > 1), None)
    if spelled is None:
        return
    cells = columns.cells[label]
    rows = {value: [row for row, cell in enumerate(cells) if cell == value] for value in spelled}
    first = min(found[0] for found in rows.values())
    raise RequestError(
        Problem(
            f"{columns.source}:{columns.lines[first]}",
            f"one class is written in {len(spelled)} ways in column {label!r}: "
            + ", ".join(f"{ascii(value) if _look_alike(spelled) else repr(value)}" for value in spelled),
            "one way of writing each class",
            "; ".join(f"{count_rows(len(found))} of {value!a} ({where_rows(columns, found)})" for value, found in rows.items()),
        )
    )


def _look_alike(spelled: Sequence[str]) -> bool:
    return len({unicodedata.normalize("NFC", value) for value in spelled}) < len(spelled)


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(map(repr, values[:5])) + (", …" if len(values) > 5 else "")
    return f"{len(values)} class{'' if len(values) == 1 else 'es'} ({shown})"


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value.strip()) is not None


def _number(value: str) -> Decimal:
    return Decimal(value.strip().replace(",", "."))
