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

_WIDE = 110
_GAP = 2


def show(console: Console, *parts: RenderableType) -> None:
    """Print the parts one below the other."""
    console.print(Group(*parts))


def recipe_table(recipes: Mapping[str, Any], default: str, width: int) -> Table:
    """The shipped recipes: name, what each does, and where it is from, if there is room for that."""
    table = plain_table()
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it does", ratio=3)
    if width >= _WIDE:
        table.add_column("from", ratio=3, style="dim")
    for name, about in recipes.items():
        mine = name == default
        summary = f"{about['summary']} (default)" if mine else about["summary"]
        cells = [name, summary, about.get("paper", "")][: len(table.columns)]
        table.add_row(*map(escape, cells), style="bold green" if mine else "")
    return table


@dataclass(frozen=True)
class Column:
    """Its cells, and its importance: where room is short the lowest goes first; None never goes."""

    name: str
    cells: list[str]
    importance: int | None = None

    @property
    def width(self) -> int:
        """Cells of the terminal that it needs."""
        return max(cell_len(text) for text in (self.name, *self.cells))


def without_room(columns: Sequence[Column], width: int) -> list[Column]:
    """Those that have to go where a table may be so wide, least important first."""
    needed = sum(column.width + _GAP for column in columns) - _GAP
    gone = []
    for column in sorted((one for one in columns if one.importance is not None), key=lambda one: one.importance or 0):
        if needed <= width:
            break
        gone.append(column)
        needed -= column.width + _GAP
    return gone


def column_table(columns: Sequence[Column], names: Collection[str], styles: Mapping[str, str]) -> Table:
    """A table of columns: those called ``names`` are wrapped where they must be, figures never.

    ``styles`` are those of rows, by what stands in their first cell.
    """
    table = plain_table()
    for column in columns:
        if column.name in names:
            table.add_column(column.name, overflow="fold")
        else:
            table.add_column(column.name, justify="right", no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(escape, cells), style=styles.get(cells[0], ""))
    return table


def plain_table() -> Table:
    """A table without lines."""
    return Table(box=None, pad_edge=False, header_style="bold")


def title_line(text: str) -> Text:
    """What stands above a table."""
    return Text(text, style="italic")


def size_text(parameters: int | None) -> str:
    """A number of parameters: ``22.7M``, ``48k``."""
    if parameters is None:
        return ""
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters / 1e3:.0f}k"
