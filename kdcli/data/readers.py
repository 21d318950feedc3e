"""Files to columns: CSV, TSV, JSON and Parquet, every cell as text, every fault with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdcli.data.cutting import LONGEST
from kdcli.data.delimited import read_delimited
from kdcli.data.json_records import read_json
from kdcli.data.table import Columns, TableBuilder, count_of, fingerprint, named_lines
from kdcli.data.text_file import refuse_other_kinds
from kdcli.errors import Problem, RequestError

if TYPE_CHECKING:
    import pyarrow.parquet

__all__ = ["SUFFIXES", "Columns", "fingerprint", "named_lines", "read"]

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
_BATCH = 4096


def read(path: Path, header: tuple[str, ...] | None = None, *, broken_rows_allowed: float = 0.0) -> Columns:
    """Read one file by its suffix.

    Args:
        path: a ``.csv`` (quoted), ``.tsv``/``.txt`` (tabs, no quoting), ``.jsonl``/``.json`` or ``.parquet`` file.
        header: the column names where the file has no header line.
        broken_rows_allowed: the fraction of rows with a wrong number of fields that is left out rather than refused; more
            than none for files that are read as they were distributed, so that nothing is concluded from their contents.

    Raises:
        RequestError: the file is missing, empty, of another kind, or broken; with the line.
    """
    try:
        if not path.is_file():
            raise RequestError(Problem(str(path), "there is no such file"))
        if path.stat().st_size == 0:
            raise RequestError(Problem(str(path), "the file is empty"))
        columns = _read(path, header, broken_rows_allowed)
    except OSError as error:
        raise RequestError(Problem(str(path), "cannot be read", found=error.strerror or str(error))) from error
    if len(columns) == 0:
        raise RequestError(Problem(str(path), "has a header and no rows" if _has_header(path, header) else "has no rows"))
    columns.notes = [f"{path.name}: {note}" for note in [*columns.notes, *_about_long_texts(columns)]]
    return columns


def _has_header(path: Path, header: tuple[str, ...] | None) -> bool:
    return header is None and path.suffix.lower() in (".csv", ".tsv", ".txt")


def _read(path: Path, header: tuple[str, ...] | None, broken_rows_allowed: float) -> Columns:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return read_delimited(path, header, broken_rows_allowed, as_distributed=broken_rows_allowed > 0)
    if suffix in (".jsonl", ".json"):
        return read_json(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    refuse_other_kinds(path)
    raise RequestError(Problem(str(path), "is of a kind that is not read", "one of " + ", ".join(SUFFIXES)))


def _read_parquet(path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name.strip() for name in file.schema_arrow.names]
            if len(set(names)) < len(names):
                raise RequestError(Problem(str(path), "names a column twice", found=", ".join(names)))
            table = TableBuilder(path)
            for row, record in enumerate(_records(file, names), start=1):
                table.add(row, record, surrogates=False)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        raise RequestError(Problem(str(path), "is not a Parquet file", found=str(error))) from error
    return table.columns()


def _about_long_texts(columns: Columns) -> list[str]:
    long = {row for cells in columns.cells.values() for row, cell in enumerate(cells) if len(cell) > LONGEST}
    if not long:
        return []
    lines = named_lines([columns.lines[row] for row in sorted(long)])
    return [f"{count_of(len(long), 'row')} with a text of over {LONGEST:,} characters ({lines}): models see no more than those"]


def _records(file: pyarrow.parquet.ParquetFile, names: list[str]) -> Iterator[dict[str, object]]:
    """The rows, a few thousand in memory at a time; bytes are text where they are UTF-8."""
    for batch in file.iter_batches(_BATCH):
        for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield {name: cell.decode() if isinstance(cell, bytes) else cell for name, cell in zip(names, cells, strict=True)}
