"""Latencies as tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from kdcli.cli.rendering import Column, column_tables, title_line

if TYPE_CHECKING:
    from kdcli.export.latency import Latency
    from kdcli.export.variants import Variant
    from kdcli.jobs.export import Export

_NAMES = ("file", "model", "engine")


def export_view(done: Export, width: int) -> list[RenderableType]:
    """The files that were written and how good they are, then how fast."""
    columns = _file_columns(done)
    parts: list[RenderableType] = [title_line(f"files, held against the model on {done.judged}"), *_tables(columns, width)]
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
    parts += [
        Text(
            f"{variant.precision}: {variant.check.ties} texts change their {variant.check.decision}, between two that the "
            "model hardly tells apart"
        )
        for variant in done.kept
        if variant.check is not None and variant.precision == "fp32" and variant.check.ties
    ]
    if done.latencies:
        parts += [Text(""), *latency_tables(done.latencies, done.machine, width)]
    return [*parts, Text(f"\n{done.folder}")]


def _file_columns(done: Export) -> list[Column]:
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
    decision = next((one.check.decision for one in rows if one.check is not None), "class")
    return [
        Column("file", [one.precision for one in rows]),
        Column("kept", ["no" if one.broken else "yes" for one in rows]),
        Column("MB", [f"{one.bytes / 1e6:.1f}" for one in rows]),
        Column("MB resident", resident),
        Column(metric, [cell(one, "score") for one in rows]),
        Column("95 % interval", [cell(one, "interval") for one in rows]),
        Column("points lost", [cell(one, "drop") for one in rows]),
        Column(f"same {decision}", [cell(one, "same") for one in rows]),
        Column("logits differ", [cell(one, "difference") for one in rows]),
    ]


def latency_tables(latencies: Sequence[Latency], machine: Mapping[str, Any], width: int) -> list[RenderableType]:
    """A table per shape, fastest first, and a line about the machine; side by side as far as ``width`` has room."""
    from kdcli.export.latency import by_shape

    parts: list[RenderableType] = []
    for (batch, length), rows in by_shape(latencies).items():
        title = title_line(f"milliseconds per batch at batch {batch}, length {length}")
        parts += [title, *_tables(_columns(rows), width), Text("")]
    return [*parts, Text(_about(machine), style="dim")] if parts else []


def _columns(rows: Sequence[Latency]) -> list[Column]:
    from kdcli.export.latency import three_figures

    slowest = max(row.p50_ms for row in rows)
    columns = [
        Column("model", [row.model for row in rows]),
        Column("engine", [row.engine for row in rows]),
        Column("p50", [three_figures(row.p50_ms) for row in rows]),
        Column("95 % interval", ["–".join(map(three_figures, row.interval_ms)) for row in rows]),
        Column("p90", [three_figures(row.p90_ms) for row in rows]),
        Column("p99", [three_figures(row.p99_ms) for row in rows]),
        Column("samples/s", [three_figures(row.samples_per_second) for row in rows]),
        Column("speed-up", [f"{slowest / row.p50_ms:.1f}×" for row in rows]),
    ]
    joules = [three_figures(row.joules * 1e3) for row in rows if row.joules is not None]
    return [*columns, Column("mJ", joules)] if len(joules) == len(rows) else columns


def _tables(columns: Sequence[Column], width: int) -> list[RenderableType]:
    return column_tables(columns, _NAMES, {"student": "bold green"}, width)


def _about(machine: Mapping[str, Any]) -> str:
    parts = [machine.get("processor"), machine.get("gpu"), f"{machine['threads']} threads", *machine.get("instructions", [])]
    versions = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime") if machine.get(name)]
    return f"on {', '.join(str(part) for part in (*parts, *versions) if part)}; speed-up: over the slowest of a table"
