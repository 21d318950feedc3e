"""Tables and pictures of results, on standard output."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdcli.sanitizing import harmless

_WIDE = 110
_GAP = 2
_LEAST_NAME = 12
_MOST_TABLES = 3


def show(console: Console, *parts: RenderableType) -> None:
    """Print the parts one below the other."""
    console.print(Group(*parts))


def recipe_table(recipes: Mapping[str, Any], default: str, width: int) -> Table:
    """The shipped recipes: name, what each does, and where it is from, in a column of its own if there is room for that."""
    table = plain_table()
    table.add_column("recipe", overflow="fold")
    table.add_column("what it does", ratio=3)
    wide = width >= _WIDE
    if wide:
        table.add_column("from", ratio=3, style="dim")
    for name, about in recipes.items():
        mine = name == default
        summary, paper = f"{about['summary']} (default)" if mine else about["summary"], about.get("paper", "")
        cells = [summary, paper] if wide else [f"{summary}\n{paper}" if paper else summary]
        table.add_row(*(escape(harmless(cell)) for cell in (name, *cells)), style="bold green" if mine else "")
    return table


@dataclass(frozen=True)
class Column:
    """Its name and its cells, one for each row."""

    name: str
    cells: list[str]

    @property
    def width(self) -> int:
        """Cells of the terminal that it needs."""
        return max(cell_len(line) for text in (self.name, *self.cells) for line in harmless(text).split("\n"))


def column_tables(
    columns: Sequence[Column], names: Collection[str], styles: Mapping[str, str], width: int
) -> list[RenderableType]:
    """A table of columns, with all of them, however little ``width`` there is.

    Columns called ``names`` say what a row is about; they are wrapped where they must be, figures never. Where not all figures
    fit side by side, the table goes on below in another one with the same names; where that would be many, or not even one
    figure fits beside the names, each row becomes a list.

    Args:
        columns: those that say what a row is about, and figures.
        names: which of them are wrapped.
        styles: those of rows, by what stands in their first cell.
        width: of the terminal.
    """
    about = [column for column in columns if column.name in names]
    figures = [column for column in columns if column.name not in names]
    least = sum(min(column.width, max(_LEAST_NAME, width // (3 * len(about)))) + _GAP for column in about)
    room = width - least
    groups: list[list[Column]] = [[]]
    for column in figures:
        if groups[-1] and sum(one.width + _GAP for one in (*groups[-1], column)) - _GAP > room:
            groups.append([])
        groups[-1].append(column)
    if len(groups) > _MOST_TABLES or any(column.width > room for column in figures):
        return [_list_of(columns, row, styles) for row in range(len(columns[0].cells))]
    tables: list[RenderableType] = []
    for group in groups:
        tables += [Text(""), _table([*about, *group], names, styles)] if tables else [_table([*about, *group], names, styles)]
    return tables


def _table(columns: Sequence[Column], names: Collection[str], styles: Mapping[str, str]) -> Table:
    table = plain_table()
    for column in columns:
        if column.name in names:
            table.add_column(escape(harmless(column.name)), overflow="fold")
        else:
            table.add_column(escape(harmless(column.name)), justify="right", no_wrap=True, min_width=column.width)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(escape(harmless(cell)) for cell in cells), style=styles.get(cells[0], ""))
    return table


def _list_of(columns: Sequence[Column], row: int, styles: Mapping[str, str]) -> Text:
    """One row as lines of name and value."""
    first, *others = columns
    lines = [harmless(first.cells[row]), *(f"  {harmless(one.name)}: {harmless(one.cells[row])}" for one in others)]
    return Text("\n".join(lines), style=styles.get(first.cells[row], ""), overflow="fold")


def plain_table() -> Table:
    """A table without lines."""
    return Table(box=None, pad_edge=False, header_style="bold")


def title_line(text: str) -> Text:
    """What stands above a table."""
    return Text(text, style="italic")
