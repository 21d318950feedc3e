"""Rows of CSV and TSV files, each of them read, or left out and named, or refused: nothing is swallowed."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from kdcli.data.quoting import (
    SEPARATORS,
    Dialect,
    broken_quotation,
    glued,
    is_quoted,
    of_header,
    of_suffix,
    stated,
    to_json_lines,
)
from kdcli.data.table import Columns, count_of, fingerprint, named_lines
from kdcli.data.text_file import encoding_note, lines_of, shell
from kdcli.errors import Problem, RequestError

_NUMBER = re.compile(r"-?\d+([.,]\d+)?")
_JSON = re.compile(r'\s*(\{\s*"|\[\s*\{)')
_BLOCK = 4096
_LOOK_AFTER = 1000


def read_delimited(path: Path, header: tuple[str, ...] | None, broken_rows_allowed: float, *, as_distributed: bool) -> Columns:
    """Read a CSV or TSV file.

    Args:
        path: the file; ``.csv`` has commas and quoting, others have tabs and none, unless the first line says otherwise.
        header: the column names where the file has no header line.
        broken_rows_allowed: the fraction of rows with a wrong number of fields that is left out rather than refused.
        as_distributed: separator, quoting and header are known to be right, and nothing is concluded from the contents.

    Raises:
        RequestError: the file does not fall into rows beyond doubt; with the line.
    """
    opening = _open(path, free=header is None and not as_distributed)
    reader = _Reader(path, opening.dialect, opening.lines, opening.passed)
    names = list(header) if header is not None else _names(reader.next() or [], path, opening)
    rows = _rows(reader, names, free=opening.free)
    _refuse_broken(path, opening.dialect, names, rows, broken_rows_allowed)
    _refuse_glued(path, opening.dialect, names, rows)
    notes, hint = [*encoding_note(path), *opening.notes], ""
    if opening.free:
        notes += _without_empty_end(rows)
        names, more = _with_all_named(path, names, rows)
        notes += more
        hint = _hint_at_a_missing_header(path, opening, names, rows)
        notes += _about_quotation_marks(path, opening.dialect, rows)
    missing = {
        name: [row for row, cell in enumerate(column) if not cell.strip()]
        for name, column in zip(names, rows.cells, strict=True)
    }
    return Columns(
        dict(zip(names, rows.cells, strict=True)),
        str(path),
        fingerprint(path),
        rows.lines,
        [line for line, _, _ in rows.broken],
        {name: places for name, places in missing.items() if places},
        notes=notes + _about_lines(rows),
        hint=hint,
    )


@dataclass
class _Opening:
    """The beginning of a file: its lines from the header on, how many stand before it, and how it is written."""

    dialect: Dialect
    lines: Iterator[str]
    passed: int
    free: bool
    notes: list[str] = field(default_factory=list)


@dataclass
class _Rows:
    """What has been read.

    Attributes:
        cells: the rows' cells, by column.
        lines: where each row begins.
        broken: where the rows of another width begin, that width, and their last line.
        blank: lines without any field.
        spread: rows over several lines: the row's number → how many.
        suspects: those of them whose first line has as many fields as a row: the row's number → the column in which a
            quotation opens, and the fields of each line.
    """

    cells: list[list[str]]
    lines: list[int] = field(default_factory=list)
    broken: list[tuple[int, int, str]] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    spread: dict[int, int] = field(default_factory=dict)
    suspects: dict[int, tuple[int, list[list[str]]]] = field(default_factory=dict)


class _Reader:
    """Rows with the lines that they were read from."""

    def __init__(self, path: Path, dialect: Dialect, lines: Iterator[str], passed: int) -> None:
        csv.field_size_limit(sys.maxsize)
        self.path, self.dialect = path, dialect
        self.number = passed
        self.taken: list[str] = []
        self.width: int | None = None
        self._lines = lines
        self._csv = csv.reader(
            self._feed(),
            delimiter=dialect.separator,
            quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
            skipinitialspace=dialect.padded,
            strict=True,
        )

    def _feed(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            self.taken.append(line)
            if len(self.taken) == _LOOK_AFTER and all(len(fields) == self.width for fields in self.alone()):
                raise RequestError(glued(self.path, self.dialect, self.begin, len(self.taken), self.taken[0]))
            yield line

    @property
    def begin(self) -> int:
        """The first line of the row at hand."""
        return self.number - len(self.taken) + 1

    def alone(self) -> list[list[str]]:
        """The fields of each line of the row at hand, if quotation marks had no meaning."""
        return [self.dialect.fields(line) for line in self.taken if line.strip()]

    def next(self) -> list[str] | None:
        """The next row, blank ones too, or None at the end."""
        self.taken = []
        try:
            return next(self._csv)
        except StopIteration:
            return None
        except csv.Error as error:
            at_end = "end of data" in str(error)
            problem = broken_quotation(self.path, self.dialect, self.begin, self.taken, at_end=at_end)
            raise RequestError(problem) from None


def _open(path: Path, *, free: bool) -> _Opening:
    lines = lines_of(path)
    first, passed = _first(lines)
    dialect, notes = of_suffix(path.suffix), list[str]()
    if free:
        usual = dialect
        if _JSON.match(first):
            to = shell(path.with_suffix(".json"))
            raise RequestError(Problem(f"{path}:{passed + 1}", "is JSON", "a line of names", remedy=f"cp {shell(path)} {to}"))
        said = stated(first)
        if said is not None:
            first, more = _first(lines)
            passed += 1 + more
        dialect = said or of_header(first, usual)
        if dialect.separator != usual.separator:
            named = SEPARATORS.get(dialect.separator, repr(dialect.separator))
            notes.append(f"read with {named} between the fields, as its first line has it, and with quoting")
        if dialect.padded:
            notes.append("spaces behind a separator are left out")
    return _Opening(dialect, chain([first] if first else [], lines), passed, free, notes)


def _first(lines: Iterator[str]) -> tuple[str, int]:
    """The first line that is not blank, and how many are before it."""
    passed = 0
    for line in lines:
        if line.strip():
            return line, passed
        passed += 1
    return "", passed


def _names(given: list[str], path: Path, opening: _Opening) -> list[str]:
    names = [name.strip().lstrip("\ufeff").strip() for name in given]
    changed = [name for name, before in zip(names, given, strict=True) if name != before and name]
    if changed:
        opening.notes.append("column names are taken without what stands around them: " + ", ".join(map(repr, changed)))
    named = [name for name in names if name]
    if len(set(named)) < len(named) or (not opening.free and len(set(names)) < len(names)):
        where = f"{path}:{opening.passed + 1}"
        raise RequestError(Problem(where, "the header names a column twice", "a name for each column", ", ".join(names)))
    return names


def _rows(reader: _Reader, names: list[str], *, free: bool) -> _Rows:
    width = reader.width = len(names)
    rows = _Rows([[] for _ in names])
    block: list[list[str]] = []
    while (row := reader.next()) is not None:
        begin, taken = reader.begin, reader.taken
        if len(row) <= 1 and (not row or (not row[0].strip() and '"' not in taken[0])):
            rows.blank.append(begin)
            continue
        if len(row) != width:
            rows.broken.append((begin, len(row), taken[-1]))
            continue
        if free and width > 1 and row == names:
            raise RequestError(_second_header(reader.path, begin))
        if len(taken) > 1:
            rows.spread[len(rows.lines)] = len(taken)
            if len(reader.dialect.fields(taken[0])) == width:
                before = taken[0][: taken[0].find('"')].count(reader.dialect.separator)
                rows.suspects[len(rows.lines)] = before, reader.alone()
        block.append(row)
        rows.lines.append(begin)
        if len(block) == _BLOCK:
            _move(block, rows.cells)
    _move(block, rows.cells)
    return rows


def _move(block: list[list[str]], cells: list[list[str]]) -> None:
    for column, values in zip(cells, zip(*block, strict=True), strict=False):
        column.extend(values)
    block.clear()


def _second_header(path: Path, line: int) -> Problem:
    return Problem(
        f"{path}:{line}",
        "the header stands here once more",
        "one header, in the first line",
        "",
        f"sed -i {line}d {shell(path)}",
    )


def _refuse_broken(path: Path, dialect: Dialect, names: list[str], rows: _Rows, allowed: float) -> None:
    if len(rows.broken) <= allowed * len(rows.lines):
        return
    line, width, last = rows.broken[0]
    expected = f"{count_of(len(names), 'field')}: {', '.join(names)}"
    remedy = ""
    if last.endswith("\r"):
        expected += " (a carriage return ends a line, too)"
    elif not dialect.quoted and '"' in last:
        remedy = f"cp {shell(path)} {shell(path.with_suffix('.csv'))}  # if quotation marks hold its fields together"
    elif width > len(names):
        expected += f" (a cell with {SEPARATORS.get(dialect.separator, 'the separator')} in it stands in quotation marks)"
    what = f"the row has {count_of(width, 'field')} ({count_of(len(rows.broken), 'such row')})"
    raise RequestError(Problem(f"{path}:{line}", what, expected, remedy=remedy))


def _refuse_glued(path: Path, dialect: Dialect, names: list[str], rows: _Rows) -> None:
    """Refuse a cell over several lines that are rows by themselves, as the values of other rows show.

    A mark that opens by mistake is closed by chance where another cell ends with one. A text with line breaks has no reason
    to have the right number of separators, and the name of a class at the right place, in all of its lines, or in its first.
    """
    if not rows.suspects or len(names) < 2:
        return
    known = [{cell for row, cell in enumerate(column) if row not in rows.spread and cell.strip()} for column in rows.cells]
    for row, (opened, alone) in rows.suspects.items():
        all_fit = all(len(fields) == len(names) for fields in alone)
        for column, values in enumerate(known):
            first_shows = column > opened and alone[0][column] in values
            if first_shows or (all_fit and all(fields[column] in values for fields in alone)):
                text = dialect.separator.join(cells[row] for cells in rows.cells)
                raise RequestError(glued(path, dialect, rows.lines[row], len(alone), text))


def _without_empty_end(rows: _Rows) -> list[str]:
    """Rows of separators alone at the end, which spreadsheet programs leave behind, are taken for none."""
    dropped: list[int] = []
    while len(rows.cells) > 1 and rows.lines and not any(column[-1].strip() for column in rows.cells):
        dropped.append(rows.lines.pop())
        for column in rows.cells:
            column.pop()
        rows.spread.pop(len(rows.lines), None)
    count = count_of(len(dropped), "row")
    return [f"{count} without any value at the end left out ({named_lines(dropped[::-1])})"] if dropped else []


def _with_all_named(path: Path, names: list[str], rows: _Rows) -> tuple[list[str], list[str]]:
    """Names for all columns: those without name and value are left out, those without a name get one."""
    kept, cells, notes, empty = list[str](), list[list[str]](), list[str](), 0
    for place, (name, column) in enumerate(zip(names, rows.cells, strict=True), start=1):
        if not name and not any(cell.strip() for cell in column):
            empty += 1
            continue
        if not name:
            counts = place == 1 and "index" not in names and all(cell.strip().isdecimal() for cell in column)
            name = "index" if counts else f"column {place}"
            notes.append(f"column {place} has no name and is called {name!r}")
        kept.append(name)
        cells.append(column)
    if len(set(kept)) < len(kept):
        raise RequestError(Problem(f"{path}:1", "the header names a column twice", found=", ".join(kept)))
    if empty:
        notes.append(f"{count_of(empty, 'column')} without name and values left out")
    rows.cells = cells
    return kept, notes


def _hint_at_a_missing_header(path: Path, opening: _Opening, names: list[str], rows: _Rows) -> str:
    """A command that adds a header, where the first line has values that the rows below have as well."""
    if len(names) < 2 or names == [str(place) for place in range(len(names))]:
        return ""
    for name, column in zip(names, rows.cells, strict=True):
        again = column.count(name)
        is_class = again > 1 and len(set(column)) <= len(column) / 2
        if again and (is_class or _NUMBER.fullmatch(name)):
            new = ["text", "label"] if len(names) == 2 else [f"name{place}" for place in range(1, len(names) + 1)]
            line = f"{opening.passed + 1}i {opening.dialect.separator.join(new)}"
            return (
                f"sed -i {shlex.quote(line)} {shell(path)}  # the first line seems to be a row: {name!r} is a value below, too"
            )
    return ""


def _about_quotation_marks(path: Path, dialect: Dialect, rows: _Rows) -> list[str]:
    """Take off the marks of a file without quoting that was written with it, and refuse those that a space keeps from it."""
    if dialect.quoted:
        for column in rows.cells:
            for row, cell in enumerate(column):
                if cell[:1] == " " and is_quoted(cell.strip()):
                    raise RequestError(_padded_quotation(path, dialect, rows.lines[row]))
        return []
    marked = [(column, row) for column in rows.cells for row, cell in enumerate(column) if cell[:1] == '"']
    quoted = [(column, row) for column, row in marked if is_quoted(column[row])]
    if len(quoted) == len(marked) and any('""' in column[row][1:-1] for column, row in quoted):
        for column, row in quoted:
            column[row] = column[row][1:-1].replace('""', '"')
        return [f"read with quoting: {count_of(len(quoted), 'cell')} in quotation marks, with doubled ones inside of them"]
    return [f"{count_of(len(quoted), 'cell')} in quotation marks, which are part of the text here"] if quoted else []


def _padded_quotation(path: Path, dialect: Dialect, line: int) -> Problem:
    return Problem(
        f"{path}:{line}",
        "a space stands before a quotation mark, which has no meaning there",
        "the mark directly behind the separator",
        remedy=to_json_lines(path, dialect, ", skipinitialspace=True"),
    )


def _about_lines(rows: _Rows) -> list[str]:
    notes = []
    if rows.blank:
        notes.append(f"{count_of(len(rows.blank), 'blank line')} passed over ({named_lines(rows.blank)})")
    if rows.spread:
        row, longest = max(rows.spread.items(), key=lambda item: item[1])
        begin = rows.lines[row]
        count, end = count_of(len(rows.spread), "row"), begin + longest - 1
        notes.append(f"{count} with line breaks in a cell; the longest takes lines {begin} to {end}")
    return notes
