"""Tables of predictions made elsewhere: which column holds them, and which row of the data each of them is about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcli.data.columns import index_columns
from kdcli.data.missing_values import check_labels
from kdcli.data.readers import read
from kdcli.data.table import Columns
from kdcli.data.task import Split, Task
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import check_entry
from kdcli.tasks.metric import Values
from kdcli.tasks.target_column import Column, count_rows, where_rows

_PREDICTION_COLUMNS = (
    "prediction", "predicted", "predictions", "pred", "preds", "predicted_label", "predicted_class", "pred_label", "y_pred",
)  # fmt: skip
_OTHER_COLUMNS = ("label", "labels", "class", "answer", "output")
_WHOLE = re.compile(r"\d+(\.0*)?")


def read_predictions(path: Path, task: Task, rows: Split) -> tuple[Values, list[str]]:
    """Predictions [n, …] in the order of the split's rows, and how they came to be.

    Rows are matched by a column that both files have (``id``, ``index``, …), by a column of row numbers from 0 or 1, or by the
    texts; by position only where the table has none of these.

    Raises:
        RequestError: no column of predictions or several, a row without one or with none of this task, rows that cannot be
            matched.
    """
    columns = read(path)
    name = _prediction_column(columns)
    check_labels(columns, name, "a prediction for every row")
    column = Column(columns.source, name, columns.cells[name], columns.lines)
    predictions = task.kind.read_predictions(column)
    check_entry(str(path), predictions, rows)
    order, how = _order(columns, name, task, rows)
    placed = np.empty_like(predictions)
    placed[order] = predictions
    notes = [f"{path}: predictions are column {name!r}, rows are matched {how}", *columns.notes]
    return placed, notes + [f"{path}: {sentence}" for sentence in task.kind.remarks(column)]


def _prediction_column(columns: Columns) -> str:
    for known in (_PREDICTION_COLUMNS, _OTHER_COLUMNS):
        found = [name for name in columns.cells if name.strip().lower() in known]
        if len({tuple(columns.cells[name]) for name in found}) > 1:
            raise RequestError(
                Problem(
                    columns.source,
                    "has several columns that may hold the predicted classes",
                    "one column called prediction",
                    ", ".join(found),
                )
            )
        if found:
            return found[0]
    raise RequestError(
        Problem(
            columns.source,
            "has no column with predicted classes",
            "a column called prediction, with a class in every row",
            ", ".join(columns.cells),
        )
    )


def _order(columns: Columns, name: str, task: Task, rows: Split) -> tuple[NDArray[np.int64], str]:
    """For each row of the table, the row of the split that it is about; and how that was found."""
    indices = [column for column in index_columns(columns) if column != name]
    found: dict[tuple[int, ...], str] = {}
    shared = [column for column in indices if column in rows.ids]
    for column in shared:
        order = _by_value(columns.cells[column], rows.ids[column])
        if order is not None:
            found.setdefault(tuple(order), f"by column {column!r} of both files")
    if shared and not found:
        raise _unmatched(columns, shared[0], rows.ids[shared[0]], f"the values of column {shared[0]!r} of {rows.source}")
    if not found:
        found = _by_other_columns(columns, indices, rows)
    if not found and indices:
        counted = [str(row) for row in range(len(rows))]
        raise _unmatched(columns, indices[0], counted, f"each row of {rows.source} once, from 0 to {len(rows) - 1}")
    if len(found) > 1:
        raise RequestError(
            Problem(
                columns.source,
                f"rows may be matched {' or '.join(found.values())}, which are not the same",
                "one column that says which row is meant",
            )
        )
    if found:
        ((places, how),) = found.items()
        return np.array(places, dtype=np.int64), how
    return _by_text(columns, task, rows)


def _by_other_columns(columns: Columns, indices: Sequence[str], rows: Split) -> dict[tuple[int, ...], str]:
    """By an id column that has another name in the data, or by row numbers; a named column before pandas' nameless one."""
    found: dict[tuple[int, ...], str] = {}
    for column in indices:
        nameless = column.strip().lower() in ("", "unnamed: 0")
        if nameless and found:
            continue
        title = "the nameless first column" if nameless else f"column {column!r}"
        numbers = _row_numbers(columns.cells[column])
        if numbers is not None:
            order, first = numbers
            found.setdefault(tuple(order), f"by {title}, row numbers from {first}")
            continue
        for other, values in rows.ids.items():
            order_by_value = _by_value(columns.cells[column], values)
            if order_by_value is not None:
                found.setdefault(tuple(order_by_value), f"by {title}, which is column {other!r} of the data")
    return found


def _by_value(cells: Sequence[str], values: Sequence[str]) -> list[int] | None:
    """The place of each cell among the values; None unless both hold the same ones, each once."""
    plain = [_plain(cell) for cell in cells]
    places = {_plain(value): row for row, value in enumerate(values)}
    if len(places) < len(values) or set(plain) != places.keys() or len(plain) != len(values):
        return None
    return [places[cell] for cell in plain]


def _row_numbers(cells: Sequence[str]) -> tuple[list[int], int] | None:
    """Row numbers as places from 0, and what they begin with; None unless they are 0 to n − 1, or 1 to n, each once."""
    if not all(_WHOLE.fullmatch(cell.strip()) for cell in cells):
        return None
    numbers = [int(cell.strip().partition(".")[0]) for cell in cells]
    first = min(numbers)
    if first > 1 or sorted(numbers) != list(range(first, first + len(numbers))):
        return None
    return [number - first for number in numbers], first


def _by_text(columns: Columns, task: Task, rows: Split) -> tuple[NDArray[np.int64], str]:
    """By position, or by the texts where the table has them and they are in another order."""
    position = np.arange(len(rows))
    text = None if task.columns is None else task.columns.text
    if text not in columns.cells:
        return position, "by position, since the table has no column that says which row is meant"
    assert text is not None
    cells = [cell.strip() for cell in columns.cells[text]]
    texts = [cell.strip() for cell in rows.texts]
    if cells == texts:
        return position, f"by position, with the same texts in column {text!r}"
    order = _by_value(cells, texts)
    if order is None:
        raise _unmatched(columns, text, texts, f"the texts of {rows.source}, or a column called index")
    return np.array(order, dtype=np.int64), f"by the texts in column {text!r}"


def _unmatched(columns: Columns, column: str, values: Sequence[str], expected: str) -> RequestError:
    """The error about an index that does not fit: what is there twice, what is unknown, what is missing."""
    cells = [_plain(cell) for cell in columns.cells[column]]
    known = {_plain(value) for value in values}
    if len(known) < len(values):
        repeated = count_rows(len(values) - len(known))
        what = f"column {column!r} cannot say which row is meant: {repeated} of the data repeat a value"
        return RequestError(Problem(columns.source, what, "a value of its own for each row"))
    counts = Counter(cells)
    twice = [row for row, cell in enumerate(cells) if counts[cell] > 1]
    strange = [row for row, cell in enumerate(cells) if cell not in known]
    parts = []
    if twice:
        parts.append(f"{count_rows(len(twice))} with a value that another row has ({where_rows(columns, twice)})")
    if strange:
        parts.append(f"{count_rows(len(strange))} with a value that no row of the data has ({where_rows(columns, strange)})")
    first = (twice or strange or [0])[0]
    return RequestError(
        Problem(
            f"{columns.source}:{columns.lines[first]}",
            f"column {column!r} does not match the rows of the data: " + " and ".join(parts),
            expected,
            repr(columns.cells[column][first][:80]),
            f"without column {column!r}, rows are matched by position",
        )
    )


def _plain(value: str) -> str:
    """``7`` for ``7.0`` and `` 7``, so that what a spreadsheet has made of an index is found."""
    plain = value.strip()
    return plain.partition(".")[0] if re.fullmatch(r"\d+\.0*", plain) else plain
