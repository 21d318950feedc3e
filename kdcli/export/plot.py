"""The latencies as one picture."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdcli.export.latency import Latency, by_shape, three_figures

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
_INK, _FAINT = "#222222", "#666666"
_ACROSS, _FEWEST_ACROSS = 3, 1.4
_PANEL_WIDTH, _BAR_HEIGHT = 5.2, 0.3
_LONGEST_LABEL = 40


def draw(latencies: Sequence[Latency], machine: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: a panel per shape, in it a bar per model and engine, fastest on top; colours tell the models.

    Bars reach to the median, with its 95 % interval; the diamond is the 90th percentile.

    Args:
        latencies: at least one.
        machine: what :func:`kdcli.export.machine.describe` says.
        path: the file to write; its folder exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shapes = by_shape(latencies)
    across = min(len(shapes), _ACROSS)
    down = math.ceil(len(shapes) / across)
    bars = max(map(len, shapes.values()))
    width, height = max(across, _FEWEST_ACROSS) * _PANEL_WIDTH, down * (bars * _BAR_HEIGHT + 0.9) + 1.0
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    FigureCanvasAgg(figure)
    colours = {model: _COLOURS[place % len(_COLOURS)] for place, model in enumerate(dict.fromkeys(r.model for r in latencies))}
    panels = figure.subplots(down, across, squeeze=False).flat
    for (shape, rows), panel in zip(shapes.items(), panels, strict=False):
        _draw_panel(panel, shape, rows, colours)
    for panel in panels:
        panel.set_axis_off()
    figure.suptitle("Milliseconds per batch", x=0.01, ha="left", fontsize=13, color=_INK)
    figure.supxlabel(_caption(machine, int(width * 15)), x=0.01, ha="left", fontsize=8, color=_FAINT, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, format="png", dpi=120)


def _draw_panel(panel: Any, shape: tuple[int, int], rows: Sequence[Latency], colours: Mapping[str, str]) -> None:
    places = range(len(rows))
    medians = [row.p50_ms for row in rows]
    below = [max(row.p50_ms - row.interval_ms[0], 0.0) for row in rows]
    above = [max(row.interval_ms[1] - row.p50_ms, 0.0) for row in rows]
    panel.barh(places, medians, height=0.7, color=[colours[row.model] for row in rows])
    panel.errorbar(medians, places, xerr=[below, above], fmt="none", ecolor=_INK, elinewidth=1.2, capsize=3)
    panel.plot([row.p90_ms for row in rows], places, "D", markersize=3.5, color="white", markeredgecolor=_INK)
    for place, row in zip(places, rows, strict=True):
        end = max(row.p90_ms, row.interval_ms[1])
        words = f"{three_figures(row.p50_ms)}   {_speed_up(row, rows)}"
        panel.annotate(words, (end, place), (7, 0), textcoords="offset points", va="center", fontsize=8, color=_INK)
    panel.set_yticks(places, [_label(row) for row in rows], fontsize=8, parse_math=False)
    panel.set_title(f"batch {shape[0]}, length {shape[1]}", loc="left", fontsize=10, color=_INK)
    panel.invert_yaxis()
    panel.margins(x=0.36)
    panel.set_xlim(left=0)
    panel.tick_params(axis="x", labelsize=8, colors=_FAINT)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)


def _label(row: Latency) -> str:
    whole = f"{row.model} · {row.engine}"
    half = _LONGEST_LABEL // 2
    return whole if len(whole) <= _LONGEST_LABEL else f"{whole[: half - 1]}…{whole[-half:]}"


def _speed_up(row: Latency, rows: Sequence[Latency]) -> str:
    return f"{max(other.p50_ms for other in rows) / row.p50_ms:.1f}×"


def _caption(machine: Mapping[str, Any], width: int) -> str:
    """What the marks mean, and below it what is known of the machine."""
    versions = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime", "transformers") if machine.get(name)]
    about = [machine.get("processor"), machine.get("gpu"), f"{machine.get('threads')} threads", *versions]
    marks = "bar: median with its 95 % interval; diamond: 90th percentile; ×: against the slowest"
    return "\n".join(textwrap.fill(line, width) for line in (marks, ", ".join(str(part) for part in about if part)))
