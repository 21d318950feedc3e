"""Pictures of coloured cells: confusion matrices, and how much layers resemble each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdcli.evaluation.report.canvas import FAINT, GRID, INK, PAPER, WIDTH, Picture, canvas, finished, shown, ticker

ON_BRIGHT, ON_DARK = "#000001", "#fefefe"  # letters on coloured cells, the same whatever the theme
CELLS = "cividis"
_CORNER = "#c2500b"  # between the brightness of the cells, and so seen on all

_MOST_WRITTEN = 13


@dataclass(frozen=True)
class Grid:
    """Numbers of pairs of layers (or of layers and heads), for :func:`heatmap`.

    Attributes:
        title: stands above the picture.
        values: a row for each layer of the student.
        rows, columns: what the two sides are.
        first_row, first_column: number of the first of each.
        top: the value that gets the brightest (or with ``low_is_alike`` the darkest) colour; None takes the highest.
        low_is_alike: whether low values stand for likeness.
    """

    title: str
    values: Sequence[Sequence[float]]
    rows: str
    columns: str
    first_row: int = 0
    first_column: int = 0
    top: float | None = None
    low_is_alike: bool = False


def confusion(name: str, model: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Picture:
    """Counts of each gold class (rows, the colour is the share of the row) and answer (columns, by number)."""
    size, cell = len(labels), 30
    names = [f"{shown(label, 18)} ({place})" for place, label in enumerate(labels, 1)]
    beside = 24 + max(map(len, names)) * 6
    with canvas(name, max(WIDTH, beside + size * cell), 92 + size * max(cell - 4, 20)) as figure:
        axes = figure.subplots()
        shares = [[count / max(sum(row), 1) for count in row] for row in counts]
        mesh = _cells(axes, shares, 1.0, False)
        for row, column, text in ((r, c, str(counts[r][c])) for r in range(size) for c in range(size) if counts[r][c]):
            _in_cell(axes, mesh, row, column, text, shares[row][column])
        axes.set_yticks([place + 0.5 for place in range(size)], names)
        axes.set_xticks([place + 0.5 for place in range(size)], [str(place) for place in range(1, size + 1)])
        axes.set(title=shown(model), xlabel="answer, by number", ylabel="label")
        return finished(figure, name, f"Confusion matrix of {model}: {size} classes")


def heatmap(name: str, grid: Grid, chosen: Mapping[int, int], suggested: Mapping[int, int]) -> Picture:
    """Cells coloured by likeness, with their values where there is room for them.

    Args:
        name: of the picture.
        grid: what to draw.
        chosen: row → column by the recipe's layer map; outlined.
        suggested: row → column by another; marked in the corner.
    """
    high, wide = len(grid.values), len(grid.values[0])
    written = wide <= _MOST_WRITTEN
    width = max(WIDTH, 62 + 26 * wide if written else 100 + 12 * wide)
    with canvas(name, width, 96 + high * (26 if written else 18) + 20 * bool(chosen or suggested)) as figure:
        axes = figure.subplots()
        mesh = _cells(axes, grid.values, grid.top, grid.low_is_alike)
        if written:
            for row, column in ((r, c) for r in range(high) for c in range(wide)):
                value = grid.values[row][column]
                _in_cell(axes, mesh, row, column, _three_signs(value), value)
        else:
            bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=14)
            bar.outline.set_visible(False)
            bar.ax.yaxis.set_major_locator(ticker().MaxNLocator(3))
        axes.set(title=shown(grid.title, 54), xlabel=shown(grid.columns), ylabel=grid.rows)
        _number(axes.yaxis, grid.first_row, high)
        _number(axes.xaxis, grid.first_column, wide)
        marks = _mark(axes, grid, chosen, suggested, small=not written)
        if marks:
            figure.legend(handles=marks, loc="outside lower left", ncols=2, handlelength=1.4, columnspacing=1.4)
        return finished(figure, name, f"{grid.title}: {grid.rows} against {grid.columns}, {high} by {wide} values")


def _cells(axes: Any, values: Sequence[Sequence[float]], top: float | None, low_is_alike: bool) -> Any:
    """Coloured cells, the first row on top; bright is alike, grey is where there is no value."""
    import numpy as np

    found = np.ma.masked_invalid(np.asarray(values, dtype=np.float64))
    highest = top if top is not None else float(found.max()) if found.count() else 1.0
    lowest = min(0.0, float(found.min())) if found.count() else 0.0
    colours = CELLS + "_r" * low_is_alike
    axes.set_facecolor(GRID)
    mesh = axes.pcolormesh(found, cmap=colours, vmin=lowest, vmax=max(highest, lowest + 1e-9), edgecolors=PAPER, linewidth=1)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return mesh


def _in_cell(axes: Any, mesh: Any, row: int, column: int, text: str, value: float) -> None:
    colour = FAINT if math.isnan(value) else readable_on(mesh.to_rgba(value)[:3])
    axes.text(column + 0.5, row + 0.53, text, ha="center", va="center", color=colour)


def readable_on(background: Sequence[float]) -> str:
    """Dark or light letters, whichever stand out more (WCAG 2) on a colour [red, green, blue] from 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return ON_BRIGHT if (luminance + 0.05) ** 2 > 0.05 * 1.05 else ON_DARK


def _three_signs(value: float) -> str:
    """``.87``, ``1.2``, ``12``, ``1``, ``–``: two figures that fit into a cell."""
    if math.isnan(value):
        return "–"
    if abs(value) >= 9.95:
        return f"{value:.0f}"
    written = f"{value:.2f}" if abs(value) < 0.995 else f"{value:.1f}"
    return written.replace("0.", ".", 1).replace(".00", "0")


def _number(axis: Any, first: int, count: int) -> None:
    """Number the cells from ``first``, not all of them where they are many."""
    step = 1 if count <= _MOST_WRITTEN else math.ceil(count / 8)
    places = [place for place in range(count) if (first + place) % step == 0]
    axis.set_ticks([place + 0.5 for place in places], [str(first + place) for place in places])


def _mark(axes: Any, grid: Grid, chosen: Mapping[int, int], suggested: Mapping[int, int], small: bool) -> list[Any]:
    """Outline the cells of one layer map, mark those of the other in the corner (or inside small ones); what a legend needs."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon, Rectangle

    def inside(layers: Mapping[int, int]) -> list[tuple[int, int]]:
        cells = [(row - grid.first_row, column - grid.first_column) for row, column in layers.items()]
        return [(row, column) for row, column in cells if 0 <= row < len(grid.values) and 0 <= column < len(grid.values[0])]

    for row, column in inside(chosen):
        for colour, width in ((ON_DARK, 3.4), (ON_BRIGHT, 1.6)) if small else ((ON_DARK, 4.4), (ON_BRIGHT, 2.2)):
            axes.add_patch(Rectangle((column + 0.06, row + 0.07), 0.88, 0.86, fill=False, edgecolor=colour, linewidth=width))
    for row, column in inside(suggested):
        if small:
            axes.plot(column + 0.5, row + 0.5, "o", markersize=6, color=_CORNER, markeredgecolor=ON_DARK, markeredgewidth=0.8)
            continue
        corner = [(column + 0.58, row + 0.05), (column + 0.95, row + 0.05), (column + 0.95, row + 0.42)]
        axes.add_patch(Polygon(corner, facecolor=_CORNER, edgecolor=ON_DARK, linewidth=0.8))
    outline = Line2D([], [], linestyle="", marker="s", markersize=9, markerfacecolor="none", markeredgecolor=INK)
    outline.set(markeredgewidth=2, label="the recipe's map")
    flag = Line2D([], [], linestyle="", marker="o" if small else [(-1, 1), (1, 1), (1, -1)], color=_CORNER)
    flag.set(markersize=7 if small else 9, label="suggested map")
    return [outline] * bool(inside(chosen)) + [flag] * bool(inside(suggested))
