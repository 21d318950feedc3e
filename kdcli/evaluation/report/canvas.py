"""What every picture is drawn on and turned into: its colours, its letters, and one SVG for files and pages alike.

Lengths are in units of the SVG, which the page shows as about one pixel each.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

INK, FAINT, GRID, PAPER = "#1b2026", "#566070", "#d3d9e0", "#ffffff"
SERIES = ("#0072b2", "#c2500a", "#00805e", "#a04f86", "#9a6b00", "#2b86b5", "#6b7280")  # Okabe and Ito's, darkened
THEME = {INK: "ink", FAINT: "faint", GRID: "grid", PAPER: "paper"} | {c: f"s{i}" for i, c in enumerate(SERIES, 1)}

WIDTH = 400
_FONT = 11
_NAME = 46
_PER_INCH, _PNG_PER_INCH = 72, 160
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


@contextmanager
def canvas(name: str, width: int, height: int) -> Iterator[Any]:
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


def settle(figure: Any) -> None:
    """Lay out once, for what is placed by hand afterwards and for all formats alike."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def finished(figure: Any, name: str, title: str) -> Picture:
    """The figure in all its formats; ``title`` says what is to be seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    settle(figure)
    said = readable(title)
    drawn, pixels = io.BytesIO(), io.BytesIO()
    unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(drawn, metadata={**unsaid, "Title": said})  # savefig would draw once more each
    figure.set_dpi(_PNG_PER_INCH)
    FigureCanvasAgg(figure).print_png(pixels, metadata={"Software": None})
    svg = drawn.getvalue().decode("utf-8")
    width = round(figure.get_figwidth() * _PER_INCH)
    return Picture(name, said, svg, pixels.getvalue(), _inline(svg, name, said), width)


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


def readable(text: str) -> str:
    """On one line, without characters that XML cannot hold."""
    return " ".join("".join(sign if sign.isprintable() or sign.isspace() else "\ufffd" for sign in text).split())


def shown(text: str, most: int = _NAME) -> str:
    """A name as it fits: the middle of a long one is left out, since names of models differ at both ends."""
    whole, half = readable(text), most // 2
    return whole if len(whole) <= most else f"{whole[: most - half - 1]}…{whole[-half:]}"


def ticker() -> Any:
    """Matplotlib's module of that name, loaded when the first picture is drawn."""
    from matplotlib import ticker

    return ticker


def plain_logarithms(axis: Any) -> None:
    """Mark 1, 2, 5, 10 and so on, and write them as plain numbers."""
    axis.set_major_locator(ticker().LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_minor_locator(ticker().NullLocator())
    axis.set_major_formatter(ticker().FuncFormatter(lambda value, _: f"{value:,.10g}"))
