"""Each picture once, drawn from few numbers, and what can be read in one."""

from __future__ import annotations

import math
from collections.abc import Callable
from xml.etree import ElementTree

from kdcli.evaluation.document import ModelScore, RecipeScore
from kdcli.evaluation.report import charts, heatmaps
from kdcli.evaluation.report.canvas import Picture
from kdcli.evaluation.report.charts import Point
from kdcli.evaluation.report.curves import Line, Phase
from kdcli.evaluation.report.heatmaps import Grid
from kdcli.tasks.calibration import Bin, Calibration

MARKUP = '<b>&"x"</b> $a_b$'
BINS = (Bin(0.0, 0.5, 0, None, None), Bin(0.5, 1.0, 40, 0.8, 0.7))
CALIBRATION = Calibration(ece=0.1, ece_high=0.12, nll=0.5, bins=BINS, temperature=1.2, ece_after=0.05, nll_after=0.4)
PHASE = Phase(
    name=MARKUP,
    metric="accuracy",
    losses=[Line("loss", [1, 2, 3], [90.0, 3.0, 1.0]), Line("loss/hard-labels", [1, 2, 3], [2.0, 1.0, 0.5])],
    dev=[Line(MARKUP, [2, 3], [0.5, 0.75])],
    best=3,
    stages=[("one", 1), ("two", 2)],
    averaged=1,
)
GRID = Grid("CKA", [[0.1, 0.87], [1.0, math.nan], [12.4, 3.21]], "student layer", f"layer of {MARKUP}")


def model(name: str, score: float) -> ModelScore:
    return ModelScore(name=name, role="student", kind="checkpoint", scores={"f1": score}, interval=(score - 0.05, score + 0.02))


def recipe(name: str) -> RecipeScore:
    return RecipeScore(name=name, scores={0: 0.5, 1: 0.6}, mean=0.55, deviation=0.0707, models={0: "a", 1: "b"})


DRAW: dict[str, Callable[[str], Picture]] = {
    "scores": lambda name: charts.scores(name, "Scores", [model(MARKUP, 0.8), model("other", 0.7)], "f1"),
    "seeds": lambda name: charts.seeds(name, "Seeds", [recipe(MARKUP), recipe("other")], "f1"),
    "reliability": lambda name: charts.reliability(name, MARKUP, CALIBRATION),
    "confusion": lambda name: heatmaps.confusion(name, MARKUP, [MARKUP, "b"], [[30, 4], [0, 17]]),
    "heatmap": lambda name: heatmaps.heatmap(name, GRID, {0: 1, 1: 0}, {2: 1}),
    "losses": lambda name: charts.losses(name, PHASE),
    "progress": lambda name: charts.progress(name, PHASE),
    "tradeoff": lambda name: charts.tradeoff(
        name, "Costs", "MB", "f1", [Point(MARKUP, "student", 1, 0.5), Point("b", "teacher", 90, 0.6)]
    ),
}


def words(picture: Picture) -> list[str]:
    """The texts of the inline SVG, as a reader sees them."""
    return [element.text or "" for element in ElementTree.fromstring(picture.inline).iter("text")]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2, of colours from 0 to 1."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)
