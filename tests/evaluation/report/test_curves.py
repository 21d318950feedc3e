"""Learning curves: read from logged lines, by hand, and thinned."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kdcli.evaluation.report.curves import Line, read_phases


def train(step: int, phase: str = "distill", stage: str = "distill", **values: float) -> dict[str, Any]:
    named = {name.replace("_", "/"): value for name, value in values.items()}
    return {"kind": "train", "phase": phase, "step": step, "stage": stage, "values": named}


def dev(step: int, best: bool, **scores: float) -> dict[str, Any]:
    models = {model: {"matthews": 0.1, "accuracy": score} for model, score in scores.items()}
    return {"kind": "dev", "phase": "distill", "step": step, "stage": "distill", "scores": models, "best": best}


def test_losses_scores_stages_and_the_best_evaluation_of_each_phase_are_found() -> None:
    lines = [
        train(1, "cofinetune", "cofinetune", loss=3.0),
        train(1, loss_b=1.0, loss=3.0, loss_a=2.0),
        dev(2, True, student=0.5),
        train(3, stage="last", loss_b=0.5, loss=1.0, loss_a=0.5),
        dev(4, True, student=0.7),
        dev(6, False, student=0.6),
        {"kind": "done", "phase": "distill", "step": None, "score": 0.7},
    ]
    cofinetune, distill = read_phases(lines, "accuracy")
    assert (cofinetune.name, cofinetune.losses, cofinetune.dev) == ("cofinetune", [Line("loss", [1], [3.0])], [])
    assert [line.name for line in distill.losses] == ["loss", "loss/b", "loss/a"]
    assert distill.losses[0] == Line("loss", [1, 3], [3.0, 1.0])
    assert distill.dev == [Line("student", [2, 4, 6], [0.5, 0.7, 0.6])]
    assert (distill.best, distill.metric, distill.averaged) == (4, "accuracy", 1)
    assert distill.stages == [("distill", 1), ("last", 3)]


def test_the_only_term_of_a_loss_is_not_drawn_twice() -> None:
    assert [line.name for line in read_phases([train(1, loss=1.0, loss_a=1.0)], "accuracy")[0].losses] == ["loss"]


def test_a_metric_that_was_not_logged_gives_way_to_the_first_that_was() -> None:
    assert read_phases([dev(1, True, student=0.5)], "f1")[0].metric == "matthews"


def test_values_that_are_no_numbers_are_left_out() -> None:
    found = read_phases([train(1, loss=math.nan), train(2, loss=2.0), train(3, loss=math.inf)], "accuracy")
    assert found[0].losses == [Line("loss", [2], [2.0])]


def test_many_values_become_means_of_equal_numbers_of_them() -> None:
    (phase,) = read_phases([train(step, loss=float(step)) for step in range(1, 1001)], "accuracy")
    (line,) = phase.losses
    assert len(line.steps) <= 160
    assert phase.averaged == 7
    assert (line.steps[0], line.values[0]) == (4, 4)
    assert line.values == pytest.approx(line.steps)


def test_nothing_logged_gives_no_phases() -> None:
    assert read_phases([{"kind": "done", "phase": "distill", "step": None}], "accuracy") == []
