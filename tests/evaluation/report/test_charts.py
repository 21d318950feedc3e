"""Scores, seeds, losses and costs: what stands in each of the pictures."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from kdcli.evaluation.report import charts
from kdcli.evaluation.report.charts import Point
from tests.evaluation.report.drawings import DRAW, words


def test_scores_are_written_beside_the_names() -> None:
    assert {"80.0", "70.0", "other"} <= set(words(DRAW["scores"]("one")))


def test_a_recipe_shows_mean_and_spread_of_its_seeds() -> None:
    assert "55.0 ± 7.1" in words(DRAW["seeds"]("one"))


def test_losses_far_apart_have_a_logarithmic_axis_in_plain_numbers() -> None:
    found = words(DRAW["losses"]("one"))
    assert {"1", "10", "100"} <= set(found)
    assert not [text for text in found if "mathdefault" in text]


def test_undominated_points_are_those_that_no_other_beats_in_both() -> None:
    def point(cost: float, score: float) -> Point:
        return Point("", "model", cost, score)

    best = [point(1, 0.5), point(2, 0.7), point(5, 0.9)]
    worse = [point(1, 0.4), point(3, 0.7), point(4, 0.6), point(5, 0.8), point(9, 0.9)]
    assert charts.undominated([*worse, *reversed(best)]) == best


def test_numbers_of_points_at_one_place_do_not_cover_each_other() -> None:
    points = [Point(f"model {place}", "model", 1, 0.5 + place / 1000) for place in range(4)]
    points.append(Point("far", "teacher", 9, 0.9))
    root = ElementTree.fromstring(charts.tradeoff("one", "Costs", "MB", "f1", points).inline)
    numbers = [each for each in root.iter("text") if each.text in list("1234") and "--ink" in each.get("style", "")]
    places = [(float(each.get("x", 0)), float(each.get("y", 0))) for each in numbers]
    assert len(places) == 4
    assert min(math.dist(one, other) for one in places for other in places if one != other) > 8
