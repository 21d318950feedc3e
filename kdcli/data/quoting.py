"""Separators and quotation marks of CSV files: which ones a file has, and where they go wrong."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdcli.errors import Problem

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_STATED = re.compile(r'"?sep=(.)"?\s*')
_SHOWN = 60


@dataclass(frozen=True)
class Dialect:
    """How the fields of a row are told apart.

    Attributes:
        separator: the character between them.
        quoted: whether quotation marks hold a field together; else they are ordinary characters.
        padded: whether spaces behind a separator are no part of the field.
    """

    separator: str
    quoted: bool
    padded: bool = False

    def fields(self, line: str) -> list[str]:
        """The fields of a line if quotation marks had no meaning, without those around a field."""
        return [cell.strip('"') for cell in line.rstrip("\r\n").split(self.separator)]


def of_suffix(suffix: str) -> Dialect:
    """``.csv``: commas and quoting; others: tabs and no quoting."""
    return Dialect(",", quoted=True) if suffix.lower() == ".csv" else Dialect("\t", quoted=False)


def stated(line: str) -> Dialect | None:
    """What a line ``sep=;`` says, which Excel writes before the header."""
    found = _STATED.fullmatch(line)
    return None if found is None else Dialect(found[1], quoted=True)


def of_header(line: str, usual: Dialect) -> Dialect:
    """The dialect that a header is written in: the usual one where it has its separator or none at all."""
    bare = _QUOTED.sub("", line) if usual.quoted else line
    counts = {separator: bare.count(separator) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    chosen = usual if counts[usual.separator] or not counts[best] else Dialect(best, quoted=True)
    padded = chosen.quoted and re.search(re.escape(chosen.separator) + " +[^ ]", bare) is not None
    return Dialect(chosen.separator, chosen.quoted, padded)


def is_quoted(cell: str) -> bool:
    """Whether a cell is written as a quoted field: marks around it, and only doubled ones inside of it."""
    return cell[:1] == '"' and _QUOTED.fullmatch(cell) is not None


def broken_quotation(path: Path, dialect: Dialect, begin: int, lines: Sequence[str], *, at_end: bool) -> Problem:
    """What is wrong with the quotation marks of a row.

    Args:
        path: the file.
        dialect: how it is written.
        begin: the row's first line.
        lines: the row's lines as far as they were read.
        at_end: whether the file ended inside of a quotation; else text follows a closing mark.
    """
    line, opened = _where_it_opens(lines, begin, dialect)
    last = begin + len(lines) - 1
    if at_end:
        what = "a quotation mark opens here and never closes"
    elif line < last:
        what = f"a quotation mark opens here, and the next one, in line {last}, is not at the end of a cell"
    else:
        what = "text stands between a closing quotation mark and the next separator"
    rule = 'cells as "…", and each quotation mark inside of them twice: "say ""hi"""'
    return Problem(f"{path}:{line}", what, rule, opened.strip()[:_SHOWN], to_json_lines_without_quoting(path, dialect))


def glued(path: Path, dialect: Dialect, line: int, count: int, text: str) -> Problem:
    """A cell that takes ``count`` lines, as it seems because a mark that opens by mistake was closed by chance."""
    return Problem(
        f"{path}:{line}",
        f"a quotation mark opens here and runs over {count} lines that read as rows of their own",
        "a closing quotation mark at the end of the cell",
        (text.strip().splitlines() or [""])[0][:_SHOWN],
        to_json_lines(path, dialect) + "  # if it is one text all the same",
    )


def to_json_lines(path: Path, dialect: Dialect, options: str = "") -> str:
    """A command that writes a CSV file as JSON lines, quoting as it is."""
    into = path.with_name(f"{path.stem}-mended.jsonl")
    source, target, separator = (json.dumps(word, ensure_ascii=False) for word in (str(path), str(into), dialect.separator))
    code = (
        f"import pandas; pandas.read_csv({source}, sep={separator}, dtype=str, keep_default_na=False{options})"
        f'.to_json({target}, orient="records", lines=True, force_ascii=False)'
    )
    return f"python -c {shlex.quote(code)}"


def to_json_lines_without_quoting(path: Path, dialect: Dialect) -> str:
    """The same for a file whose quotation marks are ordinary characters."""
    return to_json_lines(path, dialect, ", quoting=3") + "  # if its quotation marks are ordinary characters"


def _where_it_opens(lines: Sequence[str], begin: int, dialect: Dialect) -> tuple[int, str]:
    """The line, and the rest of it, where the quotation opens that is at fault: the last one of these lines."""
    found, inside = (begin, lines[0] if lines else ""), False
    for number, line in enumerate(lines, start=begin):
        place = 0
        while place >= 0:
            if inside:
                place = line.find('"', place)
                if place < 0:
                    break
                inside = line[place + 1 : place + 2] == '"'  # a doubled one
                place += 2 if inside else 1
                if not inside and line[place : place + 1].rstrip("\r\n") not in ("", dialect.separator):
                    return found
            else:
                while dialect.padded and line[place : place + 1] == " ":
                    place += 1
                if line[place : place + 1] == '"':
                    inside, found = True, (number, line[place:])
                    place += 1
                    continue
            if not inside:
                place = line.find(dialect.separator, place)
                place = place + 1 if place >= 0 else -1
    return found
