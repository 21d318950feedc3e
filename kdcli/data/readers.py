"""Files to columns: CSV, TSV, JSON lines and Parquet, every cell as text, every fault with its line."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdcli.errors import Problem, RequestError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")


@dataclass
class Columns:
    """A table as text.

    Attributes:
        cells: column name → its cells.
        source: the file, for messages.
        fingerprint: first 16 hex digits of the file's sha256.
        lines: the line of each row in the file.
        skipped: lines with the wrong number of fields that were left out.
        missing: column → the rows (from 0) without a value there; their cells are empty text.
        structured: column → the rows whose cell is a list or an object, not a single value; their cells are its JSON.
        notes: what the user should know about how the file was read.
    """

    cells: dict[str, list[str]]
    source: str
    fingerprint: str
    lines: list[int]
    skipped: list[int] = field(default_factory=list)
    missing: dict[str, list[int]] = field(default_factory=dict)
    structured: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)


def read(path: Path, header: tuple[str, ...] | None = None, *, broken_rows_allowed: float = 0.0) -> Columns:
    """Read one file by its suffix.

    Args:
        path: a ``.csv`` (quoted), ``.tsv``/``.txt`` (tabs, no quoting), ``.jsonl``/``.json`` or ``.parquet`` file.
        header: the column names where the file has no header line.
        broken_rows_allowed: the fraction of rows with a wrong number of fields that is left out rather than refused.

    Raises:
        RequestError: the file is missing, empty, of another kind, or broken; with the line.
    """
    if not path.is_file():
        raise RequestError(Problem(str(path), "there is no such file"))
    if path.stat().st_size == 0:
        raise RequestError(Problem(str(path), "the file is empty"))
    try:
        columns = _read(path, header, broken_rows_allowed)
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise RequestError(Problem(str(path), "cannot be read", "UTF-8 text", str(error))) from error
    if len(columns) == 0:
        raise RequestError(Problem(str(path), "has a header and no rows" if header is None else "has no rows"))
    return columns


def _read(path: Path, header: tuple[str, ...] | None, broken_rows_allowed: float) -> Columns:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_rows(path, header, broken_rows_allowed, delimiter=",", quoting=csv.QUOTE_MINIMAL)
    if suffix in (".tsv", ".txt"):
        return _read_rows(path, header, broken_rows_allowed, delimiter="\t", quoting=csv.QUOTE_NONE)
    if suffix in (".jsonl", ".json"):
        return _read_json_lines(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    raise RequestError(Problem(str(path), "is of a kind that is not read", "one of " + ", ".join(SUFFIXES)))


def _read_rows(
    path: Path, header: tuple[str, ...] | None, broken_rows_allowed: float, *, delimiter: str, quoting: int
) -> Columns:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
        names = list(header) if header is not None else next(reader, [])
        rows, lines, broken = [], [], []
        for row in reader:
            if len(row) == len(names):
                rows.append(row)
                lines.append(reader.line_num)
            elif row:
                broken.append((reader.line_num, len(row)))
    if len(set(names)) < len(names):
        raise RequestError(Problem(f"{path}:1", "the header names a column twice", found=", ".join(names)))
    if len(broken) > broken_rows_allowed * len(rows):
        line, width = broken[0]
        raise RequestError(
            Problem(
                f"{path}:{line}",
                f"the row has {width} fields ({len(broken)} such rows)",
                f"{len(names)} fields: {', '.join(names)}",
            )
        )
    cells = {name: [row[column] for row in rows] for column, name in enumerate(names)}
    missing = {name: [row for row, cell in enumerate(column) if not cell.strip()] for name, column in cells.items()}
    return Columns(
        cells,
        str(path),
        fingerprint(path),
        lines,
        [line for line, _ in broken],
        {name: rows for name, rows in missing.items() if rows},
    )


def _read_json_lines(path: Path) -> Columns:
    records, lines = [], []
    for line, record in _records(path):
        if not isinstance(record, dict):
            raise RequestError(Problem(f"{path}:{line}", "is not a JSON object", '{"text": "…", "label": "…"}'))
        records.append(record)
        lines.append(line)
    names = list(records[0]) if records else []
    return _from_values({name: [record.get(name) for record in records] for name in names}, path, lines)


def _records(path: Path) -> Iterator[tuple[int, object]]:
    """The objects of JSON lines, or of one JSON list."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        if text.lstrip().startswith("["):
            yield from ((row + 1, record) for row, record in enumerate(json.loads(text)))
            return
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(Problem(f"{path}{line}", f"is not valid JSON: {error}")) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RequestError(Problem(f"{path}:{number}", f"is not valid JSON: {error}")) from error


def _read_parquet(path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise RequestError(Problem(str(path), "is not a Parquet file", found=str(error))) from error
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    return _from_values(values, path, list(range(1, table.num_rows + 1)))


def _from_values(values: dict[str, list[object]], path: Path, lines: list[int]) -> Columns:
    """Cells of any kind as text, noting those without a value and those that are no single one."""
    missing = {name: [row for row, cell in enumerate(cells) if _is_missing(cell)] for name, cells in values.items()}
    structured = {
        name: [row for row, cell in enumerate(cells) if isinstance(cell, list | dict)] for name, cells in values.items()
    }
    texts = {name: [_as_text(cell) for cell in cells] for name, cells in values.items()}
    return Columns(
        texts,
        str(path),
        fingerprint(path),
        lines,
        missing={name: rows for name, rows in missing.items() if rows},
        structured={name: rows for name, rows in structured.items() if rows},
    )


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())


def _as_text(cell: object) -> str:
    if isinstance(cell, str):
        return cell
    if _is_missing(cell):
        return ""
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, list | dict) else str(cell)


def fingerprint(path: Path) -> str:
    """The first 16 hex digits of the file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
