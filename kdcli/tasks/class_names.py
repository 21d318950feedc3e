"""From the labels that files write to classes: which there are, which are one, and what is no class at all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal

from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.tasks.target_column import Column, count_rows, where_rows

_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d{1,3})?")
_MOST_DECIMAL_CLASSES = 20
_MANY_CLASSES = 1000
_FEW_ROWS = 10
# What may be a class and may be a missing value.
_DOUBTFUL = frozenset(
    {"null", "NULL", "Null", "NA", "na", "N/A", "n/a", "n.a.", "none", "NONE", "nil", "-", "--", "?", "missing", "undefined"}
)
_REGRESSION = "numbers are learned with --kind regression"


def same_label(value: str) -> object:
    """What two ways of writing one class have in common: the number, or the letters without case, blanks and composition.

    >>> same_label("1.0") == same_label("01"), same_label("Spam ") == same_label("spam")
    (True, True)
    """
    plain = value.strip()
    if _NUMBER.fullmatch(plain):
        return Decimal(plain.replace(",", ".")).normalize()
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", plain).casefold()).split())


def classes_of(column: Column) -> tuple[str, ...]:
    """The classes that a column holds, in alphabetical order, or in that of their numbers.

    Raises:
        RequestError: one class is written in two ways.
    """
    values = set(column.cells)
    _refuse_two_spellings(column, values)
    return tuple(sorted(values, key=lambda one: (_number(one), one)) if all(map(_is_number, values)) else sorted(values))


def check_trainable(column: Column) -> list[str]:
    """Whether a column of labels is something that a classifier can be trained on; notes on what is odd about it.

    Raises:
        RequestError: one class alone, many different decimal numbers, a class for every row.
    """
    cells, label = column.cells, column.name
    counts = Counter(cells)
    if len(counts) < 2:
        raise RequestError(
            Problem(
                column.source,
                f"all {len(cells)} rows have the same label",
                "at least two classes",
                repr(next(iter(counts))),
                "--label-column NAME, if another column holds the classes",
            )
        )
    refuse_regression(column)
    if len(counts) == len(cells) and len(cells) >= _FEW_ROWS:
        raise RequestError(
            Problem(
                column.source,
                f"each of the {len(cells)} rows has a label of its own in column {label!r}",
                "classes that several rows share",
                ", ".join(map(repr, cells[:3])) + ", …",
                "--label-column NAME, if another column holds the classes",
            )
        )
    notes = []
    if len(counts) > _MANY_CLASSES or (len(cells) >= _FEW_ROWS and len(counts) > len(cells) / 2):
        notes.append(
            f"{column.source}: {len(counts)} classes in {len(cells)} rows of column {label!r}; is it a column of classes?"
        )
    single = [value for value, count in counts.items() if count == 1]
    if single and len(cells) >= _FEW_ROWS:
        notes.append(f"{column.source}: {_listed(single)} with one row each")
    return notes


def refuse_regression(column: Column) -> None:
    """Refuse labels that look like measured numbers.

    Raises:
        RequestError: many different numbers, some of which are not whole.
    """
    values = {value.strip() for value in column.cells}
    if not all(map(_is_number, values)):
        return
    numbers = {_number(value) for value in values}
    whole = all(number == number.to_integral_value() for number in numbers)
    if not whole and (len(numbers) > _MOST_DECIMAL_CLASSES or 2 * len(numbers) > max(len(column), _FEW_ROWS)):
        raise RequestError(
            Problem(
                column.source,
                f"column {column.name!r} holds {len(numbers)} different numbers: it looks like regression, and {_REGRESSION}",
                "classes",
                ", ".join(column.cells[:4]) + ", …",
                "--label-column NAME, if another column holds the classes",
            )
        )


def unknown_label(column: Column, row: int, known: Sequence[str]) -> RequestError:
    """The error about a label that is none of the classes."""
    value = column.cells[row]
    decimal = _is_number(value) and _number(value) != _number(value).to_integral_value() and all(map(_is_number, known))
    return RequestError(
        Problem(
            column.place(row),
            f"unknown label {value!r} in column {column.name!r}" + (f"; {_REGRESSION}" if decimal else ""),
            "one of " + ", ".join(known[:20]) + ("…" if len(known) > 20 else ""),
            remedy="" if _is_number(value) else did_you_mean(value, known),
        )
    )


def no_class(column: Column, row: int, names: Sequence[str], raw_names: Sequence[str]) -> RequestError:
    """The error about a prediction that is none of the classes."""
    cell = column.cells[row]
    hint = did_you_mean(cell, [*names, *raw_names])
    if re.fullmatch(r"-?\d+", cell.strip()):
        hint = "the names of the classes: a number may be an index in any order"
    elif re.fullmatch(r"0?\.\d+([eE][-+]?\d+)?", cell.strip()):
        hint = "the classes, not their probabilities"
    return RequestError(
        Problem(
            column.place(row),
            f"{cell!r} is not a class of the task",
            ", ".join(names[:20]) + ("…" if len(names) > 20 else ""),
            remedy=hint,
        )
    )


def _refuse_two_spellings(column: Column, values: Iterable[str]) -> None:
    by_key: dict[object, list[str]] = {}
    for value in sorted(values):
        by_key.setdefault(same_label(value), []).append(value)
    spelled = next((group for group in by_key.values() if len(group) > 1), None)
    if spelled is None:
        return
    cells = column.cells
    rows = {value: [row for row, cell in enumerate(cells) if cell == value] for value in spelled}
    first = min(found[0] for found in rows.values())
    raise RequestError(
        Problem(
            column.place(first),
            f"one class is written in {len(spelled)} ways in column {column.name!r}: "
            + ", ".join(f"{ascii(value) if _look_alike(spelled) else repr(value)}" for value in spelled),
            "one way of writing each class",
            "; ".join(f"{count_rows(len(found))} of {value!a} ({where_rows(column, found)})" for value, found in rows.items()),
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


def doubtful_labels(column: Column) -> list[str]:
    """A note on each class that may as well be a missing value."""
    counts = Counter(column.cells)
    return [
        f"{column.source}: {value!r} is taken as a class ({count_rows(count)}); if it stands for a missing label, "
        "leave these rows out"
        for value, count in counts.items()
        if value.strip() in _DOUBTFUL
    ]
