"""Latencies as tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdcli.cli.rendering import plain_table, title_line

if TYPE_CHECKING:
    from kdcli.export.latency import Latency
    from kdcli.export.variants import Variant
    from kdcli.jobs.export import Export

_GAP = 2
_NAMES = ("model", "engine")


@dataclass(frozen=True)
class _Column:
    """Its cells, and its importance: where room is short the lowest goes first; None never goes."""

    name: str
    cells: list[str]
    importance: int | None = None

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.name, *self.cells))


def export_view(done: Export, width: int) -> list[RenderableType]:
    """The files that were written and how good they are, then how fast."""
    columns = _file_columns(done)
    left_out = _without_room(columns, width)
    table = _table([column for column in columns if column not in left_out])
    parts: list[RenderableType] = [title_line("files, held against the model on dev"), table]
    parts += [
        Text(f"{variant.precision} was deleted: {variant.broken}", style="yellow")
        for variant in done.variants
        if variant.broken
    ]
    parts += [
        Text(f"{variant.precision}: left in fp32 to keep the score: {', '.join(variant.excluded)}")
        for variant in done.kept
        if variant.excluded
    ]
    if done.latencies:
        parts += [Text(""), *latency_tables(done.latencies, done.machine, width)]
    return [*parts, Text(f"\n{done.folder}")]


def _file_columns(done: Export) -> list[_Column]:
    def cell(variant: Variant, figure: str) -> str:
        if variant.check is None:
            return "–"
        split = variant.check.split
        return {
            "score": "–" if split.score is None else f"{split.score:.4f}",
            "interval": "–" if split.interval is None else f"{split.interval[0]:.3f}–{split.interval[1]:.3f}",
            "drop": f"{split.drop:.2f}",
            "same": f"{split.agreement:.2%}",
            "difference": f"{split.max_difference:.1e}",
        }[figure]

    rows = done.variants
    metric = next((one.check.split.metric for one in rows if one.check is not None and one.check.split.metric), "score")
    resident = [f"{done.memory[one.precision].peak_bytes / 1e6:.0f}" if one.precision in done.memory else "–" for one in rows]
    return [
        _Column("file", [one.precision for one in rows]),
        _Column("kept", ["no" if one.broken else "yes" for one in rows]),
        _Column("MB", [f"{one.bytes / 1e6:.1f}" for one in rows]),
        _Column("MB resident", resident, 2),
        _Column(metric, [cell(one, "score") for one in rows], 6),
        _Column("95 % interval", [cell(one, "interval") for one in rows], 3),
        _Column("points lost", [cell(one, "drop") for one in rows]),
        _Column("same class", [cell(one, "same") for one in rows], 4),
        _Column("logits differ", [cell(one, "difference") for one in rows], 1),
    ]


def latency_tables(latencies: Sequence[Latency], machine: Mapping[str, Any], width: int) -> list[RenderableType]:
    """A table per shape, fastest first, and a line about the machine; as many columns as ``width`` has room for."""
    from kdcli.export.latency import by_shape

    tables = {shape: _columns(rows) for shape, rows in by_shape(latencies).items()}
    left_out = {column.name for columns in tables.values() for column in _without_room(columns, width)}
    parts: list[RenderableType] = []
    for (batch, length), columns in tables.items():
        title = title_line(f"milliseconds per batch at batch {batch}, length {length}")
        parts += [title, _table([column for column in columns if column.name not in left_out]), Text("")]
    return [*parts, Text(_about(machine), style="dim")] if parts else []


def _columns(rows: Sequence[Latency]) -> list[_Column]:
    from kdcli.export.latency import three_figures

    slowest = max(row.p50_ms for row in rows)
    columns = [
        _Column("model", [row.model for row in rows]),
        _Column("engine", [row.engine for row in rows]),
        _Column("p50", [three_figures(row.p50_ms) for row in rows]),
        _Column("95 % interval", ["–".join(map(three_figures, row.interval_ms)) for row in rows], 2),
        _Column("p90", [three_figures(row.p90_ms) for row in rows], 4),
        _Column("p99", [three_figures(row.p99_ms) for row in rows], 1),
        _Column("samples/s", [three_figures(row.samples_per_second) for row in rows], 3),
        _Column("speed-up", [f"{slowest / row.p50_ms:.1f}×" for row in rows]),
    ]
    joules = [three_figures(row.joules * 1e3) for row in rows if row.joules is not None]
    return [*columns, _Column("mJ", joules, 0)] if len(joules) == len(rows) else columns


def _without_room(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Those that have to go, least important first."""
    needed = sum(column.width + _GAP for column in columns) - _GAP
    gone = []
    for column in sorted((one for one in columns if one.importance is not None), key=lambda one: one.importance or 0):
        if needed <= width:
            break
        gone.append(column)
        needed -= column.width + _GAP
    return gone


def _table(columns: Sequence[_Column]) -> Table:
    """Names are wrapped where they must be, figures never."""
    table = plain_table()
    for column in columns:
        if column.name in _NAMES:
            table.add_column(column.name, overflow="fold")
        else:
            table.add_column(column.name, justify="right", no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(escape, cells), style="bold green" if cells[0] == "student" else "")
    return table


def _about(machine: Mapping[str, Any]) -> str:
    parts = [machine.get("processor"), machine.get("gpu"), f"{machine['threads']} threads", *machine.get("instructions", [])]
    versions = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime") if machine.get(name)]
    return f"on {', '.join(str(part) for part in (*parts, *versions) if part)}; speed-up: over the slowest of a table"
