"""Cells that hold no value: what counts as one, and how rows with such cells are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdcli.data.columns import Choice
from kdcli.data.table import Columns
from kdcli.errors import Problem, RequestError
from kdcli.tasks.target_column import count_rows, where_rows

# What pandas, NumPy and Python write for a missing value; nobody calls a class so.
_LEFT_BEHIND = frozenset({"nan", "NaN", "NAN", "-nan", "-NaN", "<NA>", "NaT", "None", "#N/A", "#NA", "1.#QNAN", "-1.#IND"})


def rows_without(columns: Columns, name: str, *, words: bool = True) -> list[int]:
    """The rows (from 0) of a column that hold no value.

    Args:
        columns: the table.
        name: the column.
        words: also those in which a program has written a word for a missing value, such as ``nan``.
    """
    found = set(columns.missing.get(name, ()))
    for row, cell in enumerate(columns.cells[name]):
        plain = cell.strip()
        if not plain or (words and plain in _LEFT_BEHIND):
            found.add(row)
    return sorted(found)


def without_rows(columns: Columns, rows: Sequence[int]) -> Columns:
    """The table without some of its rows."""
    gone = set(rows)
    kept = [row for row in range(len(columns)) if row not in gone]
    places = {row: place for place, row in enumerate(kept)}

    def renumbered(found: dict[str, list[int]]) -> dict[str, list[int]]:
        return {name: [places[row] for row in those if row in places] for name, those in found.items()}

    return replace(
        columns,
        cells={name: [cells[row] for row in kept] for name, cells in columns.cells.items()},
        lines=[columns.lines[row] for row in kept],
        missing=renumbered(columns.missing),
        structured=renumbered(columns.structured),
    )


def check_texts(columns: Columns, choice: Choice) -> None:
    """Refuse rows whose text or second text is missing, or is a list or an object.

    Raises:
        RequestError: there are such rows; with their number and the first lines.
    """
    for what, name in (("text", choice.text), ("second text", choice.pair)):
        if name is not None:
            _refuse_structured(columns, name, what)
            rows = rows_without(columns, name)
            if rows:
                raise _missing(columns, name, what, rows, f"leave these rows out, or write what the {what} is")


def check_labels(columns: Columns, name: str, remedy: str) -> None:
    """Refuse rows whose label is missing, or is a list or an object.

    Raises:
        RequestError: there are such rows; with their number and the first lines.
    """
    _refuse_structured(columns, name, "label")
    rows = rows_without(columns, name)
    if rows:
        raise _missing(columns, name, "label", rows, remedy)


def _missing(columns: Columns, name: str, what: str, rows: Sequence[int], remedy: str) -> RequestError:
    written = Counter(columns.cells[name][row].strip() or "empty or null" for row in rows)
    return RequestError(
        Problem(
            f"{columns.source}:{columns.lines[rows[0]]}",
            f"{count_rows(len(rows))} without a {what} ({where_rows(columns, rows)})",
            f"a {what} in column {name!r} of every row",
            ", ".join(f"{value} ({count})" for value, count in written.most_common()),
            remedy,
        )
    )


def _refuse_structured(columns: Columns, name: str, what: str) -> None:
    rows = columns.structured.get(name, [])
    if rows:
        hint = "; several labels per row are not a kind of task yet" if what == "label" else ""
        raise RequestError(
            Problem(
                f"{columns.source}:{columns.lines[rows[0]]}",
                f"{count_rows(len(rows))} whose {what} is a list or an object ({where_rows(columns, rows)}){hint}",
                f"a single {'class' if what == 'label' else 'text'} in column {name!r} of every row",
                columns.cells[name][rows[0]][:80],
            )
        )


def overlap(first: Sequence[object], second: Sequence[object]) -> int:
    """How many of ``second`` are among ``first``."""
    known = set(first)
    return int(np.sum([sample in known for sample in second])) if second else 0
