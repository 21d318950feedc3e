"""The report's pictures: each a function from numbers to a :class:`Picture`, narrow enough for a phone.

Scores and shares come as fractions and are drawn times 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdcli.evaluation.document import ModelScore, RecipeScore, Role
from kdcli.evaluation.report.canvas import (
    FAINT,
    GRID,
    INK,
    PAPER,
    SERIES,
    WIDTH,
    Picture,
    canvas,
    finished,
    plain_logarithms,
    settle,
    shown,
    ticker,
)
from kdcli.evaluation.report.curves import Line, Phase
from kdcli.tasks.calibration import Calibration

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))
_LOOK: dict[Role, tuple[str, str]] = {
    "student": (SERIES[0], "o"),
    "without-teachers": (SERIES[5], "v"),
    "export": (SERIES[2], "s"),
    "model": (SERIES[0], "o"),
    "teacher": (SERIES[1], "D"),
    "ensemble": (SERIES[3], "P"),
    "majority": (SERIES[6], "X"),
}


@dataclass(frozen=True)
class Point:
    """A model in a picture of what its score costs.

    Attributes:
        label: its name, and what runs it.
        role: decides the colour.
        cost: the less the better.
        score: the more the better, as a fraction.
    """

    label: str
    role: Role
    cost: float
    score: float


def scores(name: str, title: str, models: Sequence[ModelScore], metric: str) -> Picture:
    """A line for each model: its score as a mark, its 95 % interval as a bar; the best teacher's score runs through all.

    Args:
        name: of the picture.
        title: above it.
        models: at least one.
        metric: the one that decides.
    """
    with canvas(name, WIDTH, 64 + 38 * len(models)) as figure:
        axes = _lines(figure, title, f"{metric} × 100, with 95 % intervals", len(models))
        for place, model in enumerate(models):
            colour, mark = _LOOK[model.role]
            value, low, high = (100 * each for each in (model.scores[metric], *model.interval))
            axes.plot([low, high], [place + 0.2] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(value, place + 0.2, mark, color=colour, markersize=8.5, markeredgecolor=PAPER, markeredgewidth=0.8)
            _line_label(axes, place, model.name, f"{value:.1f}")
        best = max((model.scores[metric] for model in models if model.role == "teacher"), default=None)
        if best is not None:
            axes.axvline(100 * best, color=SERIES[1], linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        return finished(figure, name, f"{title}: {metric} of {len(models)} models with 95 % intervals")


def seeds(name: str, title: str, recipes: Sequence[RecipeScore], metric: str) -> Picture:
    """A line for each recipe: a dot for each seed, the mean as a stroke, and one standard deviation to both sides."""
    with canvas(name, WIDTH, 64 + 38 * len(recipes)) as figure:
        axes = _lines(figure, title, f"{metric} × 100; stroke: mean, bar: ± 1 standard deviation", len(recipes))
        for place, recipe in enumerate(recipes):
            mean, spread = 100 * recipe.mean, 100 * (recipe.deviation or 0.0)
            values = [100 * value for value in recipe.scores.values()]
            axes.plot([mean - spread, mean + spread], [place + 0.2] * 2, color=GRID, linewidth=9, solid_capstyle="butt")
            axes.plot([mean] * 2, [place + 0.02, place + 0.38], color=INK, linewidth=1.6)
            axes.plot(values, [place + 0.2] * len(values), "o", color=SERIES[0], markersize=6, markeredgecolor=PAPER)
            written = f"{mean:.1f}" if recipe.deviation is None else f"{mean:.1f} ± {spread:.1f}"
            _line_label(axes, place, recipe.name, written)
        return finished(figure, name, f"{title}: {metric} of each seed of {len(recipes)} recipes")


def reliability(name: str, model: str, calibration: Calibration) -> Picture:
    """How often a model is right where it is so sure, above how many samples that is."""
    with canvas(name, WIDTH, 320) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        bins = [each for each in calibration.bins if each.count]
        width = 100 * (calibration.bins[0].high - calibration.bins[0].low) - 1
        middles = [50 * (each.low + each.high) for each in bins]
        sure = [100 * (each.confidence or 0.0) for each in bins]
        right = [100 * (each.accuracy or 0.0) for each in bins]
        above.bar(middles, right, width, color=SERIES[0], alpha=0.35)
        above.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="as sure as right")
        above.plot(sure, right, "o-", color=SERIES[0], markersize=4, linewidth=1.2, label="this model", clip_on=False)
        above.set(title=shown(model), ylabel="right, %", xlim=(0, 100), ylim=(0, 100))
        above.legend(loc="upper left")
        below.bar(middles, [each.count for each in bins], width, color=FAINT)
        below.set(xlabel="confidence, %", ylabel="samples")
        below.yaxis.set_major_locator(ticker().MaxNLocator(2, integer=True))
        figure.align_ylabels()
        error = f"expected calibration error {100 * calibration.ece:.1f} %"
        return finished(figure, name, f"Reliability diagram of {model}: {error}")


def losses(name: str, phase: Phase) -> Picture:
    """The losses of one phase over its steps; the axis is logarithmic where they lie far apart."""
    with canvas(name, WIDTH, 230 + 17 * math.ceil(len(phase.losses) / 2)) as figure:
        axes = figure.subplots()
        values = [value for line in phase.losses for value in line.values]
        if min(values) > 0 and max(values) > 30 * min(values):
            axes.set_yscale("log")
            plain_logarithms(axes.yaxis)
        _curves(figure, axes, phase, phase.losses, "")
        axes.set(title=shown(f"{phase.name}: losses"), xlabel="step")
        return finished(figure, name, f"Losses of the phase {phase.name} over its steps")


def progress(name: str, phase: Phase) -> Picture:
    """The dev scores of one phase over its steps, the best evaluation marked."""
    with canvas(name, WIDTH, 230 + 17 * math.ceil((len(phase.dev) + 1) / 2)) as figure:
        axes = figure.subplots()
        lines = [Line(line.name, line.steps, [100 * value for value in line.values]) for line in phase.dev]
        if phase.best is not None:
            axes.axvline(phase.best, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="best", zorder=1)
        _curves(figure, axes, phase, lines, "o")
        axes.set(title=shown(f"{phase.name}: dev {phase.metric} × 100"), xlabel="step")
        return finished(figure, name, f"Dev {phase.metric} of the phase {phase.name} over its steps")


def tradeoff(name: str, title: str, cost: str, metric: str, points: Sequence[Point]) -> Picture:
    """Scores against what they cost; those that no other model beats in both are joined.

    Args:
        name: of the picture.
        title: above it.
        cost: name and unit of the costs.
        metric: of the scores.
        points: at least one; numbered, and named below.
    """
    from matplotlib.lines import Line2D

    with canvas(name, WIDTH, 240 + 17 * len(points)) as figure:
        axes = figure.subplots()
        front = undominated(points)
        axes.plot([p.cost for p in front], [100 * p.score for p in front], color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        for point in points:
            colour, mark = _LOOK[point.role]
            axes.plot(point.cost, 100 * point.score, mark, color=colour, markersize=8, markeredgecolor=PAPER)
        _cost_axis(axes, [point.cost for point in points])
        axes.margins(x=0.12, y=0.18)
        axes.grid(True)
        axes.set(title=shown(title), xlabel=cost, ylabel=f"{metric} × 100")
        keys = [
            Line2D([], [], linestyle="", color=_LOOK[p.role][0], marker=_LOOK[p.role][1], label=f"{place}  {shown(p.label)}")
            for place, p in enumerate(points, 1)
        ]
        figure.legend(handles=keys, loc="outside lower left", handlelength=1)
        settle(figure)
        _number_points(axes, points)
        return finished(figure, name, f"{title}: {metric} against {cost} of {len(points)} models")


def undominated(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in cost and score, the cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.cost, -each.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def _lines(figure: Any, title: str, below: str, count: int) -> Any:
    """Axes for one name per line, the names above what is drawn."""
    axes = figure.subplots()
    axes.set(title=shown(title), xlabel=below, ylim=(count - 0.4, -0.55))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(ticker().MaxNLocator(6))
    return axes


def _line_label(axes: Any, place: int, left: str, right: str) -> None:
    where = axes.get_yaxis_transform()
    axes.text(0, place - 0.16, shown(left, 50 - len(right)), transform=where, va="center", color=INK)
    axes.text(1, place - 0.16, right, transform=where, ha="right", va="center", color=INK, weight="bold")


def _curves(figure: Any, axes: Any, phase: Phase, lines: Sequence[Line], mark: str) -> None:
    for place, line in enumerate(lines):
        colour, dashes = SERIES[place % len(SERIES)], _DASHES[place % len(_DASHES)]
        look = {
            "color": colour,
            "linestyle": dashes,
            "linewidth": 1.6,
            "marker": "o" if len(line.steps) == 1 else mark,
            "markersize": 4,
        }
        axes.plot(line.steps, line.values, label=shown(line.name, 24), **look)
    for _, step in phase.stages[1:]:
        axes.axvline(step, color=GRID, linewidth=1.2, zorder=0)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(ticker().MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(ticker().FuncFormatter(lambda step, _: f"{step:,.0f}"))
    figure.legend(loc="outside lower left", ncols=2, columnspacing=1.2)


def _cost_axis(axes: Any, costs: Sequence[float]) -> None:
    """Logarithmic where the costs lie far apart; written as plain numbers."""
    if min(costs) > 0 and max(costs) > 4 * min(costs):
        axes.set_xscale("log")
        plain_logarithms(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(ticker().MaxNLocator(5))


def _number_points(axes: Any, points: Sequence[Point]) -> None:
    """Write each point's number beside it, where neither a mark nor another number is."""
    taken = [tuple(axes.transData.transform((point.cost, 100 * point.score))) for point in points]
    for place, point in enumerate(points, 1):
        x, y = axes.transData.transform((point.cost, 100 * point.score))
        around = [(0, 12), (12, 0), (-12, 0), (0, -12), (11, 11), (-11, 11), (11, -11), (-11, -11), (22, 0), (0, 24)]
        dx, dy = max(around, key=lambda way: min(11.0, *(math.dist((x + way[0], y + way[1]), other) for other in taken)))
        taken.append((x + dx, y + dy))
        where = (point.cost, 100 * point.score)
        axes.annotate(str(place), where, (dx, dy), textcoords="offset points", ha="center", va="center")
