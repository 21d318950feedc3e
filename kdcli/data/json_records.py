"""Records of JSON files in the shapes that people have: lines, lists, objects one after another, tables by pandas."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from kdcli.data.table import Columns, TableBuilder, count_of, named_lines
from kdcli.data.text_file import encoding_note, lines_of
from kdcli.errors import Problem, RequestError

_SPACE = re.compile(r"[ \t\r\n]*")
_SHAPES = "JSON lines, one list of objects, an object with one list of objects in it, or a table as pandas writes it"
_ROW = '{"text": "…", "label": "…"}'
_HALF = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


class _TwiceError(ValueError):
    """An object has a key twice."""


def read_json(path: Path) -> Columns:
    """Read a JSON file; its shape is found in it, whatever its suffix.

    Raises:
        RequestError: not valid JSON, a shape that is no table, or objects with a key twice; with the line.
    """
    notes = encoding_note(path)
    table = TableBuilder(path)
    try:
        _add_lines(path, table, notes)
    except _NotLinesError as error:
        table = TableBuilder(path)
        try:
            _add_document(path, table, notes)
        except RequestError as other:
            raise (error.problem if error.problem is not None else other) from None
    columns = table.columns(notes)
    if len(columns) > 1 and columns.lines[0] == columns.lines[-1]:
        columns.lines = list(range(1, len(columns) + 1))  # all on one line, or by columns: rows have numbers, not lines
    return columns


class _NotLinesError(Exception):
    """The file is not one of JSON lines; ``problem`` is what is to be said if it is nothing else either."""

    def __init__(self, problem: RequestError | None) -> None:
        super().__init__()
        self.problem = problem


def _add_lines(path: Path, table: TableBuilder, notes: list[str]) -> None:
    """Rows from one object per line; nothing but a line is in memory at a time."""
    blank: list[int] = []
    lone: tuple[int, dict[str, Any], bool] | None = None
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            blank.append(number)
            continue
        if lone is None and line.lstrip()[:1] == "[":
            raise _NotLinesError(None)
        try:
            record = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            # the first line may be the beginning of an object over several lines; behind others, both may be meant
            known = lone is not None or getattr(error, "msg", "") == "Extra data"
            raise _NotLinesError(_invalid(path, number, error, line) if known else None) from None
        if not isinstance(record, dict):
            raise RequestError(Problem(f"{path}:{number}", "is not a JSON object", _ROW))
        halves = _HALF.search(line) is not None
        if lone is None:
            lone = number, record, halves  # may be a whole table, if it stays alone
            continue
        if not len(table):
            table.add(lone[0], lone[1], surrogates=lone[2])
        table.add(number, record, surrogates=halves)
    if lone is not None and not len(table):
        _add_object(path, table, notes, *lone)
    inner = [number for number in blank if number < table.last_line]
    if inner:
        notes.append(f"{count_of(len(inner), 'blank line')} passed over ({named_lines(inner)})")


def _add_document(path: Path, table: TableBuilder, notes: list[str]) -> None:
    """Rows from one list, or from objects that take several lines each."""
    text = "".join(lines_of(path))
    halves = _HALF.search(text) is not None
    begin = _skip(text, 0)
    if text[begin : begin + 1] == "[":
        end = _add_list(path, table, text, begin, halves)
        rest = _skip(text, end)
        if rest < len(text):
            raise RequestError(Problem(_at(path, text, rest), "something follows the list", _SHAPES, text[rest : rest + 40]))
        return
    values = list(islice(_values(path, text), 2))
    if len(values) == 1 and isinstance(values[0][1], dict):
        line, value = values[0]
        key = _key_of_rows(f"{path}:{line}", path, value)
        if key is None:
            _add_object(path, table, notes, line, value, halves)
        else:
            notes.append(_about_key(key, value))
            _add_list(path, table, text, _place_of(text, begin, key), halves)
        return
    for line, record in _values(path, text):
        if not isinstance(record, dict):
            raise RequestError(Problem(f"{path}:{line}", "is not a JSON object", _ROW))
        table.add(line, record, surrogates=halves)


def _values(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Values one after another, with the lines on which they begin."""
    line, counted, place = 1, 0, _skip(text, 0)
    while place < len(text):
        line, counted = line + _breaks(text, counted, place), place
        value, place = _decoded(path, text, place)
        yield line, value
        place = _skip(text, place)


def _add_list(path: Path, table: TableBuilder, text: str, begin: int, halves: bool) -> int:
    """Rows from the list that begins at a place; returns where it ends."""
    line, counted, place = 1, 0, _skip(text, begin + 1)
    if text[place : place + 1] == "]":
        return place + 1
    while True:
        line, counted = line + _breaks(text, counted, place), place
        record, place = _decoded(path, text, place)
        if not isinstance(record, dict):
            raise RequestError(Problem(f"{path}:{line}", f"entry {len(table) + 1} of the list is not a JSON object", _ROW))
        table.add(line, record, surrogates=halves)
        place = _skip(text, place)
        mark = text[place : place + 1]
        if mark == "]":
            return place + 1
        if mark != ",":
            raise RequestError(
                Problem(_at(path, text, place), "is not valid JSON", "a comma or ] behind an entry of the list", mark)
            )
        place = _skip(text, place + 1)


def _place_of(text: str, begin: int, key: str) -> int:
    """Where the value of a key of the object at a place begins; text and object are known to be sound."""
    place, found = _skip(text, begin + 1), ""
    while True:
        found, place = _DECODER.raw_decode(text, place)
        place = _skip(text, _skip(text, place) + 1)
        if found == key:
            return place
        _, place = _DECODER.raw_decode(text, place)
        place = _skip(text, _skip(text, place) + 1)


def _decoded(path: Path, text: str, place: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise RequestError(Problem(_at(path, text, error.pos), f"is not valid JSON: {error.msg}")) from error
    except (ValueError, RecursionError) as error:
        raise RequestError(Problem(_at(path, text, place), _said(error))) from error


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None
    return found.end()


def _breaks(text: str, begin: int, end: int) -> int:
    """Line ends between two places, a CRLF counted once."""
    returns = text.count("\r", begin, end)
    return text.count("\n", begin, end) + (returns - text.count("\r\n", begin, end) if returns else 0)


def _at(path: Path, text: str, place: int) -> str:
    return f"{path}:{1 + _breaks(text, 0, place)}"


def _invalid(path: Path, line: int, error: Exception, text: str) -> RequestError:
    remedy = ""
    if isinstance(error, json.JSONDecodeError):
        if error.msg == "Extra data" and text[error.pos :].strip() == ",":
            return RequestError(
                Problem(f"{path}:{line}", "is not valid JSON: a comma stands behind the object", "one object per line")
            )
        what = f"is not valid JSON: {error.msg} (character {error.pos + 1})"
    else:
        what = _said(error)
    return RequestError(Problem(f"{path}:{line}", what, remedy=remedy))


def _said(error: Exception) -> str:
    if isinstance(error, _TwiceError):
        return str(error)
    return "is nested too deeply" if isinstance(error, RecursionError) else f"is not valid JSON: {error}"


def _add_object(path: Path, table: TableBuilder, notes: list[str], line: int, value: dict[str, Any], halves: bool) -> None:
    """Rows from the only object of a file: a table in one of pandas' shapes, a list of rows under a key, or one row."""
    records, note = _rows_of(f"{path}:{line}", path, value)
    if note:
        notes.append(note)
    for record in records:
        table.add(line, record, surrogates=halves)


def _rows_of(where: str, path: Path, value: dict[str, Any]) -> tuple[Iterable[Mapping[str, Any]], str]:
    key = _key_of_rows(where, path, value)
    if key is not None:
        return value[key], _about_key(key, value)
    if _is_split(value):
        names = [str(name) for name in value["columns"]]
        if len(set(names)) < len(names):
            raise RequestError(Problem(where, "names a column twice", found=", ".join(names)))
        return (
            dict(zip(names, row, strict=True)) for row in value["data"]
        ), "read as columns and data, as pandas splits a table"
    if value and all(isinstance(cell, list) for cell in value.values()):
        return _from_lists(where, value), "read as a table of columns, a list for each"
    if value and all(isinstance(cell, dict) for cell in value.values()):
        return _from_objects(where, value)
    return [value], ""


def _key_of_rows(where: str, path: Path, value: Mapping[str, Any]) -> str | None:
    """The key under which the rows are as a list of objects, if there is one such list."""
    lists = [
        key for key, cell in value.items() if isinstance(cell, list) and cell and all(isinstance(row, dict) for row in cell)
    ]
    if "schema" in value and "data" in lists:
        return "data"
    if len(lists) > 1:
        raise RequestError(Problem(where, "has several lists of objects", "one", ", ".join(lists), _apart(path, lists)))
    return lists[0] if lists else None


def _about_key(key: str, value: Mapping[str, Any]) -> str:
    others = [other for other in value if other != key]
    beside = f"; left out beside it: {', '.join(others[:10])}" if others else ""
    return f"the rows are the list {key!r} of the object in the file{beside}"


def _is_split(value: Mapping[str, Any]) -> bool:
    names, data = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(data, list):
        return False
    return all(isinstance(row, list) and len(row) == len(names) for row in data) and not any(
        isinstance(name, list | dict) for name in names
    )


def _from_lists(where: str, value: Mapping[str, list[Any]]) -> Iterator[Mapping[str, Any]]:
    lengths = {name: len(cells) for name, cells in value.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length}" for name, length in islice(lengths.items(), 8))
        raise RequestError(Problem(where, "the lists of the columns are of several lengths", "one length", found))
    return (dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True))


def _from_objects(where: str, value: Mapping[str, Mapping[str, Any]]) -> tuple[Iterable[Mapping[str, Any]], str]:
    """Columns by row (pandas' usual shape), or rows by column; which of them, the keys that are numbers show."""
    inner = list(dict.fromkeys(key for cells in value.values() for key in cells))
    by_column, by_row = all(map(str.isdecimal, inner)), all(map(str.isdecimal, value))
    if by_row and not by_column:
        return value.values(), "read as a table of rows by their numbers"
    if by_column and not by_row:
        rows = ({name: cells[key] for name, cells in value.items() if key in cells} for key in inner)
        return rows, "read as a table of columns, an object for each"
    found = f"{', '.join(islice(value, 4))} with {', '.join(inner[:4])}"
    raise RequestError(
        Problem(where, "is an object of objects; which are rows and which are columns cannot be told", _SHAPES, found)
    )


def _apart(path: Path, names: list[str]) -> str:
    """A command that writes each list into a file of its own."""
    source, stem, keys = (json.dumps(word, ensure_ascii=False) for word in (str(path), str(path.with_suffix("")), names))
    code = (
        f'import json; d = json.load(open({source}, encoding="utf-8-sig"));'
        f' [json.dump(d[n], open({stem} + "-" + n.replace("/", "-") + ".json", "w")) for n in {keys}]'
    )
    return f"python -c {shlex.quote(code)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise _TwiceError(f"the key {twice!r} stands twice in one object")
    return record


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _constant(text: str) -> float | str:
    return math.nan if text == "NaN" else text


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
