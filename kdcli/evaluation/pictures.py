"""The report's pictures: each a function from numbers to a :class:`Picture`, narrow enough for a phone.

Lengths are in units of the SVG, which the page shows as about one pixel each. Scores and shares come as fractions and are
drawn times 100.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from kdcli.evaluation.calibration import Calibration
from kdcli.evaluation.curves import Line, Phase
from kdcli.evaluation.document import ModelScore, RecipeScore, Role

INK, FAINT, GRID, PAPER = "#1b2026", "#566070", "#d3d9e0", "#ffffff"
SERIES = ("#0072b2", "#c2500a", "#00805e", "#a04f86", "#9a6b00", "#2b86b5", "#6b7280")  # Okabe and Ito's, darkened
THEME = {INK: "ink", FAINT: "faint", GRID: "grid", PAPER: "paper"} | {c: f"s{i}" for i, c in enumerate(SERIES, 1)}
ON_BRIGHT, ON_DARK = "#000001", "#fefefe"  # letters on coloured cells, the same whatever the theme
CELLS = "cividis"
_CORNER = "#c2500b"  # between the brightness of the cells, and so seen on all

_WIDTH = 400
_FONT = 11
_NAME = 46
_PER_INCH, _PNG_PER_INCH = 72, 160
_MOST_WRITTEN = 13
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
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": _FONT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": FAINT,
    "axes.labelsize": _FONT,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": _FONT + 1,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.6,
    "legend.fontsize": _FONT,
    "legend.frameon": False,
    "legend.borderpad": 0.2,
    "legend.handlelength": 2.2,
    "svg.fonttype": "none",
    "xtick.color": FAINT,
    "xtick.labelsize": _FONT,
    "ytick.color": FAINT,
    "ytick.labelsize": _FONT,
}


@dataclass(frozen=True)
class Picture:
    """One picture, three times.

    Attributes:
        name: stem of its files, different from that of every other picture of a page.
        title: what is to be seen, in words.
        svg: as a file of its own, on white.
        png: the same in pixels.
        inline: as an element of an HTML page that defines the variables of :data:`THEME` (``--ink`` and so on); its letters
            are in the page's font and its ids begin with the name.
        width: its natural width in pixels.
    """

    name: str
    title: str
    svg: str
    png: bytes
    inline: str
    width: int


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


def scores(name: str, title: str, models: Sequence[ModelScore], metric: str) -> Picture:
    """A line for each model: its score as a mark, its 95 % interval as a bar; the best teacher's score runs through all.

    Args:
        name: of the picture.
        title: above it.
        models: at least one.
        metric: the one that decides.
    """
    with _canvas(name, _WIDTH, 64 + 38 * len(models)) as figure:
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
        return _picture(figure, name, f"{title}: {metric} of {len(models)} models with 95 % intervals")


def seeds(name: str, title: str, recipes: Sequence[RecipeScore], metric: str) -> Picture:
    """A line for each recipe: a dot for each seed, the mean as a stroke, and one standard deviation to both sides."""
    with _canvas(name, _WIDTH, 64 + 38 * len(recipes)) as figure:
        axes = _lines(figure, title, f"{metric} × 100; stroke: mean, bar: ± 1 standard deviation", len(recipes))
        for place, recipe in enumerate(recipes):
            mean, spread = 100 * recipe.mean, 100 * (recipe.deviation or 0.0)
            values = [100 * value for value in recipe.scores.values()]
            axes.plot([mean - spread, mean + spread], [place + 0.2] * 2, color=GRID, linewidth=9, solid_capstyle="butt")
            axes.plot([mean] * 2, [place + 0.02, place + 0.38], color=INK, linewidth=1.6)
            axes.plot(values, [place + 0.2] * len(values), "o", color=SERIES[0], markersize=6, markeredgecolor=PAPER)
            written = f"{mean:.1f}" if recipe.deviation is None else f"{mean:.1f} ± {spread:.1f}"
            _line_label(axes, place, recipe.name, written)
        return _picture(figure, name, f"{title}: {metric} of each seed of {len(recipes)} recipes")


def reliability(name: str, model: str, calibration: Calibration) -> Picture:
    """How often a model is right where it is so sure, above how many samples that is."""
    with _canvas(name, _WIDTH, 320) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        bins = [each for each in calibration.bins if each.count]
        width = 100 * (calibration.bins[0].high - calibration.bins[0].low) - 1
        middles = [50 * (each.low + each.high) for each in bins]
        sure = [100 * (each.confidence or 0.0) for each in bins]
        right = [100 * (each.accuracy or 0.0) for each in bins]
        above.bar(middles, right, width, color=SERIES[0], alpha=0.35)
        above.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="as sure as right")
        above.plot(sure, right, "o-", color=SERIES[0], markersize=4, linewidth=1.2, label="this model", clip_on=False)
        above.set(title=_shown(model), ylabel="right, %", xlim=(0, 100), ylim=(0, 100))
        above.legend(loc="upper left")
        below.bar(middles, [each.count for each in bins], width, color=FAINT)
        below.set(xlabel="confidence, %", ylabel="samples")
        below.yaxis.set_major_locator(_ticker().MaxNLocator(2, integer=True))
        figure.align_ylabels()
        error = f"expected calibration error {100 * calibration.ece:.1f} %"
        return _picture(figure, name, f"Reliability diagram of {model}: {error}")


def confusion(name: str, model: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Picture:
    """Counts of each gold class (rows, the colour is the share of the row) and answer (columns, by number)."""
    size, cell = len(labels), 30
    names = [f"{_shown(label, 18)} ({place})" for place, label in enumerate(labels, 1)]
    beside = 24 + max(map(len, names)) * 6
    with _canvas(name, max(_WIDTH, beside + size * cell), 92 + size * max(cell - 4, 20)) as figure:
        axes = figure.subplots()
        shares = [[count / max(sum(row), 1) for count in row] for row in counts]
        mesh = _cells(axes, shares, 1.0, False)
        for row, column, text in ((r, c, str(counts[r][c])) for r in range(size) for c in range(size) if counts[r][c]):
            _in_cell(axes, mesh, row, column, text, shares[row][column])
        axes.set_yticks([place + 0.5 for place in range(size)], names)
        axes.set_xticks([place + 0.5 for place in range(size)], [str(place) for place in range(1, size + 1)])
        axes.set(title=_shown(model), xlabel="answer, by number", ylabel="label")
        return _picture(figure, name, f"Confusion matrix of {model}: {size} classes")


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
    width = max(_WIDTH, 62 + 26 * wide if written else 100 + 12 * wide)
    with _canvas(name, width, 96 + high * (26 if written else 18) + 20 * bool(chosen or suggested)) as figure:
        axes = figure.subplots()
        mesh = _cells(axes, grid.values, grid.top, grid.low_is_alike)
        if written:
            for row, column in ((r, c) for r in range(high) for c in range(wide)):
                value = grid.values[row][column]
                _in_cell(axes, mesh, row, column, _three_signs(value), value)
        else:
            bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=14)
            bar.outline.set_visible(False)
            bar.ax.yaxis.set_major_locator(_ticker().MaxNLocator(3))
        axes.set(title=_shown(grid.title, 54), xlabel=_shown(grid.columns), ylabel=grid.rows)
        _number(axes.yaxis, grid.first_row, high)
        _number(axes.xaxis, grid.first_column, wide)
        marks = _mark(axes, grid, chosen, suggested, small=not written)
        if marks:
            figure.legend(handles=marks, loc="outside lower left", ncols=2, handlelength=1.4, columnspacing=1.4)
        return _picture(figure, name, f"{grid.title}: {grid.rows} against {grid.columns}, {high} by {wide} values")


def losses(name: str, phase: Phase) -> Picture:
    """The losses of one phase over its steps; the axis is logarithmic where they lie far apart."""
    with _canvas(name, _WIDTH, 230 + 17 * math.ceil(len(phase.losses) / 2)) as figure:
        axes = figure.subplots()
        values = [value for line in phase.losses for value in line.values]
        if min(values) > 0 and max(values) > 30 * min(values):
            axes.set_yscale("log")
            _plain_logarithms(axes.yaxis)
        _curves(figure, axes, phase, phase.losses, "")
        axes.set(title=_shown(f"{phase.name}: losses"), xlabel="step")
        return _picture(figure, name, f"Losses of the phase {phase.name} over its steps")


def progress(name: str, phase: Phase) -> Picture:
    """The dev scores of one phase over its steps, the best evaluation marked."""
    with _canvas(name, _WIDTH, 230 + 17 * math.ceil((len(phase.dev) + 1) / 2)) as figure:
        axes = figure.subplots()
        lines = [Line(line.name, line.steps, [100 * value for value in line.values]) for line in phase.dev]
        if phase.best is not None:
            axes.axvline(phase.best, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="best", zorder=1)
        _curves(figure, axes, phase, lines, "o")
        axes.set(title=_shown(f"{phase.name}: dev {phase.metric} × 100"), xlabel="step")
        return _picture(figure, name, f"Dev {phase.metric} of the phase {phase.name} over its steps")


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

    with _canvas(name, _WIDTH, 240 + 17 * len(points)) as figure:
        axes = figure.subplots()
        front = undominated(points)
        axes.plot([p.cost for p in front], [100 * p.score for p in front], color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        for point in points:
            colour, mark = _LOOK[point.role]
            axes.plot(point.cost, 100 * point.score, mark, color=colour, markersize=8, markeredgecolor=PAPER)
        _cost_axis(axes, [point.cost for point in points])
        axes.margins(x=0.12, y=0.18)
        axes.grid(True)
        axes.set(title=_shown(title), xlabel=cost, ylabel=f"{metric} × 100")
        keys = [
            Line2D([], [], linestyle="", color=_LOOK[p.role][0], marker=_LOOK[p.role][1], label=f"{place}  {_shown(p.label)}")
            for place, p in enumerate(points, 1)
        ]
        figure.legend(handles=keys, loc="outside lower left", handlelength=1)
        _settle(figure)
        _number_points(axes, points)
        return _picture(figure, name, f"{title}: {metric} against {cost} of {len(points)} models")


def undominated(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in cost and score, the cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.cost, -each.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


@contextmanager
def _canvas(name: str, width: int, height: int) -> Iterator[Any]:
    """A figure in matplotlib's own style and ours, whatever the user's settings are."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=(width / _PER_INCH, height / _PER_INCH), dpi=_PER_INCH, layout="constrained")
        figure.get_layout_engine().set(w_pad=4 / _PER_INCH, h_pad=4 / _PER_INCH)
        figure.patch.set_gid("paper")
        yield figure


def _settle(figure: Any) -> None:
    """Lay out once, for what is placed by hand afterwards and for all formats alike."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def _picture(figure: Any, name: str, title: str) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    _settle(figure)
    readable = _readable(title)
    drawn, pixels = io.BytesIO(), io.BytesIO()
    unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(drawn, metadata={**unsaid, "Title": readable})  # savefig would draw once more each
    figure.set_dpi(_PNG_PER_INCH)
    FigureCanvasAgg(figure).print_png(pixels, metadata={"Software": None})
    svg = drawn.getvalue().decode("utf-8")
    width = round(figure.get_figwidth() * _PER_INCH)
    return Picture(name, readable, svg, pixels.getvalue(), _inline(svg, name, readable), width)


def _inline(svg: str, name: str, title: str) -> str:
    """The SVG as an element of an HTML page (:attr:`Picture.inline`)."""
    root = ElementTree.fromstring(svg)
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
        for child in [child for child in element if _only_for_files(child)]:
            element.remove(child)
        attributes = {key.rsplit("}", 1)[-1]: value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: _at_home(key, value, name) for key, value in attributes.items()})
        if attributes.get("id") not in referred:
            element.attrib.pop("id", None)
        if element.tag != "text":
            element.text = None
        element.tail = None
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title, "style": "stroke-linejoin: round"}
    return ElementTree.tostring(root, encoding="unicode")


def _only_for_files(element: Any) -> bool:
    """Whether a page has no use for an element: it says the title by its label, a style would be the whole page's."""
    name = element.tag.rsplit("}", 1)[-1]
    is_style = name == "defs" and element[0].tag.endswith("style")
    return is_style or name in ("metadata", "title") or element.get("id") == "paper"


def _at_home(key: str, value: str, name: str) -> str:
    """An attribute's value with the page's colours, font and ids, and no more decimals than can be seen."""
    if key == "style":
        declarations = [part.split(":", 1) for part in value.split(";")]
        kept = [(what.strip(), _themed(how.strip())) for what, how in declarations if what.strip() != "font-family"]
        return "; ".join(f"{_font(how) if what == 'font' else f'{what}: {how}'}" for what, how in kept)
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "d":
        value = " ".join(value.split())
    if key in ("d", "x", "y", "transform"):
        return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", value)
    return value


def _themed(colour: str) -> str:
    return f"var(--{THEME[colour]})" if colour in THEME else colour


def _font(shorthand: str) -> str:
    """Size and weight of a CSS font, without its family."""
    size = re.search(r"[\d.]+px", shorthand)
    weight = "; font-weight: bold" if re.search(r"\b(?:bold|[6-9]00)\b", shorthand) else ""
    return f"font-size: {size[0] if size else f'{_FONT}px'}{weight}"


def _readable(text: str) -> str:
    """On one line, without characters that XML cannot hold."""
    return " ".join("".join(sign if sign.isprintable() or sign.isspace() else "\ufffd" for sign in text).split())


def _shown(text: str, most: int = _NAME) -> str:
    """A name as it fits: the middle of a long one is left out, since names of models differ at both ends."""
    readable = _readable(text)
    half = most // 2
    return readable if len(readable) <= most else f"{readable[: most - half - 1]}…{readable[-half:]}"


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker


def _lines(figure: Any, title: str, below: str, count: int) -> Any:
    """Axes for one name per line, the names above what is drawn."""
    axes = figure.subplots()
    axes.set(title=_shown(title), xlabel=below, ylim=(count - 0.4, -0.55))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(6))
    return axes


def _line_label(axes: Any, place: int, left: str, right: str) -> None:
    where = axes.get_yaxis_transform()
    axes.text(0, place - 0.16, _shown(left, 50 - len(right)), transform=where, va="center", color=INK)
    axes.text(1, place - 0.16, right, transform=where, ha="right", va="center", color=INK, weight="bold")


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
        axes.plot(line.steps, line.values, label=_shown(line.name, 24), **look)
    for _, step in phase.stages[1:]:
        axes.axvline(step, color=GRID, linewidth=1.2, zorder=0)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(_ticker().FuncFormatter(lambda step, _: f"{step:,.0f}"))
    figure.legend(loc="outside lower left", ncols=2, columnspacing=1.2)


def _cost_axis(axes: Any, costs: Sequence[float]) -> None:
    """Logarithmic where the costs lie far apart; written as plain numbers."""
    if min(costs) > 0 and max(costs) > 4 * min(costs):
        axes.set_xscale("log")
        _plain_logarithms(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(_ticker().MaxNLocator(5))


def _plain_logarithms(axis: Any) -> None:
    """Mark 1, 2, 5, 10 and so on, and write them as plain numbers."""
    axis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_minor_locator(_ticker().NullLocator())
    axis.set_major_formatter(_ticker().FuncFormatter(lambda value, _: f"{value:,.10g}"))


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
