"""Stages that end before their steps are over: by a rule for moving on, and by early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcli.engine.events import CheckpointWritten, Evaluated, Logged, Note, PhaseDone, StepDone
from kdcli.engine.stages import Phase
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.term import Reduction, Term
from kdcli.models.student import STUDENT
from kdcli.recipe.schema import Until
from tests.engine.phases import (
    PAIRS,
    WIDTHS,
    Material,
    Part,
    Terms,
    Told,
    changing,
    differing,
    labels_alone,
    phase,
    trainer,
)
from tests.engine.resuming import Course, Run

STEPS = 12


@dataclass(frozen=True)
class Falling:
    """A loss that falls from step to step, and how its layers and teachers become one."""

    layers: Reduction = "sum"
    teachers: Reduction = "mean"
    name: str = "falling"

    @property
    def comparisons(self) -> int:
        """The loss if each of its comparisons were 1: two layers of two teachers each, summed or averaged."""
        return (2 if self.layers == "sum" else 1) * (2 if self.teachers == "sum" else 1)

    def __call__(self, bank: Projections) -> list[Term]:
        weight = changing(2.0, 0.5)
        how = (self.layers, self.teachers, weight, self.name)
        return [HardLabelsTerm(weight=0.1), HiddenMseTerm(PAIRS, 32, WIDTHS, bank, "teacher", "per-layer", "all", *how)]

    def values(self, told: Told) -> list[float]:
        """Mean over layers and teachers, without the weight, step by step, from what was logged of the first stage."""
        logged = [event.values for event in told.of(Logged) if event.stage == "stage-0"]
        return [values[f"loss/{self.name}"] / values[f"{self.name}/weight"] / self.comparisons for values in logged]


def window_means(values: list[float], window: int) -> list[float]:
    return [float(np.mean(values[end - window : end])) for end in range(window, len(values) + 1, window)]


@cache
def recorded(material: Material, falling: Falling, folder: Path) -> list[float]:
    """The loss of every step when no rule ends the stage."""
    told = Told()
    trainer(folder / f"{falling.layers}-{falling.teachers}", told).run(phase(material, (STEPS,), terms=falling))
    return falling.values(told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorded")


def moving_on(
    material: Material, terms: Terms, below: float, window: float, loss: str = "falling", dropout: float = 0.0
) -> Phase:
    """A stage with a rule and one after it."""
    until = Until(loss=loss, below=below, window=window)
    return phase(material, [Part(STEPS, terms, until=until), Part(2, labels_alone)], dropout=dropout)


@pytest.mark.parametrize(
    ("falling", "window", "epochs", "ends"),
    [
        (Falling(), 3, 0.5, 2),
        (Falling(), 1, 0.01, 5),
        (Falling("mean", "sum"), 2, 0.4, 3),
        (Falling("sum", "sum"), 6, 1.0, 2),
    ],
)
@pytest.mark.parametrize("where", ["just above", "just below"])
def test_a_stage_ends_with_the_first_window_whose_mean_is_below_and_not_before(
    where: str, falling: Falling, window: int, epochs: float, ends: int, material: Material, folder: Path, tmp_path: Path
) -> None:
    """With the threshold just below a window's mean: though single steps of that window are below it already."""
    values = recorded(material, falling, folder)
    means = window_means(values, window)
    assert means[:ends] == sorted(means[:ends], reverse=True)
    below = means[ends - 1] * 1.0001 if where == "just above" else means[ends - 2] * 0.9999
    assert window == 1 or min(values[: (ends - 1) * window]) < means[ends - 2] * 0.9999
    told = Told()
    trainer(tmp_path, told).run(moving_on(material, falling, below, epochs))
    assert falling.values(told) == pytest.approx(values[: ends * window], rel=1e-6)
    expected = [*range(1, ends * window + 1), STEPS + 1, STEPS + 2]
    assert [event.step for event in told.of(StepDone)] == expected
    (note,) = told.of(Note)
    assert not note.warning
    for part in (
        f"step {ends * window} of {STEPS + 2}",
        "stage-0",
        "falling",
        f"{means[ends - 1]:.4g}",
        f"{below:g}",
        "moving on",
    ):
        assert part in note.text


def test_after_moving_on_there_is_an_evaluation_and_a_checkpoint_and_the_next_stage_begins(
    material: Material, folder: Path, tmp_path: Path
) -> None:
    below = window_means(recorded(material, Falling(), folder), 3)[0] * 1.0001
    told = Told()
    trainer(tmp_path, told, evaluations_per_epoch=1).run(moving_on(material, Falling(), below, 0.5))
    assert [event.step for event in told.of(Evaluated)] == [3, STEPS + 2]
    assert [event.step for event in told.of(CheckpointWritten)] == [3, STEPS + 2]
    end = next(row for row, event in enumerate(told.events) if isinstance(event, Note))
    kinds = [type(event) for event in told.events[end - 2 : end + 4]]
    assert kinds == [StepDone, Logged, Note, Evaluated, CheckpointWritten, StepDone]
    assert [(event.stage, event.epoch) for event in told.of(Logged)[-2:]] == [("stage-1", 1 / 6), ("stage-1", 2 / 6)]


def test_a_rule_that_is_never_met_changes_nothing(material: Material, folder: Path, tmp_path: Path) -> None:
    told = Told()
    trainer(tmp_path, told).run(moving_on(material, Falling(), 1e-9, 0.5))
    assert [event.step for event in told.of(StepDone)] == list(range(1, STEPS + 3))
    assert Falling().values(told) == pytest.approx(recorded(material, Falling(), folder), rel=1e-6)
    assert told.of(Note) == []


def test_the_last_steps_of_a_stage_that_ends_early_are_logged_too(material: Material, tmp_path: Path) -> None:
    """A stage of a hundred steps is logged after every other one; it ends with its third."""
    until = Until(loss="hard-labels", below=100.0, window=0.5)
    told = Told()
    trainer(tmp_path, told).run(phase(material, [Part(100, until=until), Part(1)], terms=labels_alone, teachers=False))
    assert [event.step for event in told.of(StepDone)] == [1, 2, 3, 101]
    assert [event.step for event in told.of(Logged)] == [2, 3, 101]


def test_a_window_that_is_cut_short_is_not_looked_at_and_the_next_stage_begins_a_new_one(
    material: Material, tmp_path: Path
) -> None:
    """Four steps to a window: five steps in the first stage, whose rule is not met, six in the second, whose rule is."""
    never, at_once = (Until(loss="hard-labels", below=below, window=2 / 3) for below in (1e-6, 100.0))
    parts = [Part(5, until=never), Part(6, labels_alone, until=at_once)]
    course = Course(lambda: phase(material, parts))
    whole = course.run(tmp_path / "whole")
    assert whole.steps == list(range(1, 10))
    for step in (3, 5, 7):
        course.assert_resumed_equals(whole, step, tmp_path / str(step))


def test_a_batch_that_is_cut_moves_on_at_the_same_step(material: Material, folder: Path, tmp_path: Path) -> None:
    below = window_means(recorded(material, Falling(), folder), 3)[1] * 1.001
    told = Told()
    trainer(tmp_path, told, accumulation=4).run(moving_on(material, Falling(), below, 0.5))
    assert [event.step for event in told.of(StepDone)] == [*range(1, 7), STEPS + 1, STEPS + 2]


def test_the_last_stage_moves_on_to_the_end_with_its_best_weights(material: Material, tmp_path: Path) -> None:
    made = phase(
        material, [Part(2, labels_alone), Part(6, labels_alone, until=Until(loss="hard-labels", below=100.0, window=0.5))]
    )
    given = iter([0.9, 0.6, 0.4])
    made.score = lambda logits: {STUDENT: {"accuracy": next(given)}}
    told = Told()
    assert trainer(tmp_path, told).run(made) == 0.6
    assert [(event.step, event.best) for event in told.of(Evaluated)] == [(2, False), (4, True), (5, False)]
    assert told.events[-1] == PhaseDone("distill", 0.6)


@pytest.fixture(scope="module")
def until_course(material: Material, folder: Path) -> Course:
    """With dropout; the first stage ends with its second window of three steps, the second one with its first of two."""
    plain = Told()
    trainer(folder / "dropout", plain).run(phase(material, (STEPS,), terms=Falling(), dropout=0.1))
    means = window_means(Falling().values(plain), 3)
    first = Until(loss="falling", below=(means[0] + means[1]) / 2, window=0.5)
    second = Until(loss="hard-labels", below=100.0, window=1 / 3)
    parts = [Part(STEPS, Falling(), until=first), Part(4, labels_alone, until=second), Part(2, labels_alone)]
    return Course(lambda: phase(material, parts, dropout=0.1))


UNTIL_STEPS = [1, 2, 3, 4, 5, 6, 13, 14, 17, 18]


@pytest.fixture(scope="module")
def until_run(until_course: Course, tmp_path_factory: pytest.TempPathFactory) -> Run:
    whole = until_course.run(tmp_path_factory.mktemp("until"))
    assert whole.steps == UNTIL_STEPS
    assert len(whole.told.of(Note)) == 2
    return whole


@pytest.mark.parametrize("step", UNTIL_STEPS)
def test_a_run_with_rules_resumes_at_any_step_as_if_uninterrupted(
    step: int, until_course: Course, until_run: Run, tmp_path: Path
) -> None:
    """In a window, at its end, right after a stage has ended early, and in the stages after it."""
    until_course.assert_resumed_equals(until_run, step, tmp_path)


@pytest.mark.parametrize(("step", "saved"), [(5, 4), (6, 4), (13, 6), (14, 6)])
def test_a_run_with_rules_that_was_killed_goes_on_from_its_checkpoint(
    step: int, saved: int, until_course: Course, until_run: Run, tmp_path: Path
) -> None:
    """Before the window is looked at, and before what was found is saved."""
    until_course.assert_killed_equals(until_run, step, saved, tmp_path)


# four evaluations of the first stage, then those of the last one: best at its second, two without a new best, and no more
SCORES = [0.9, 0.2, 0.1, 0.1, 0.3, 0.5, 0.4, 0.5]
LAST_STEP = len(SCORES)


def stopping_early(material: Material) -> Course:
    settings: dict[str, Any] = {"early_stopping": 2, "evaluations_per_epoch": 6}
    return Course(lambda: phase(material, (4, 20), terms=labels_alone, teachers=False, dropout=0.1), settings, SCORES)


@pytest.fixture(scope="module")
def stopped_early(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return stopping_early(material).run(tmp_path_factory.mktemp("early"))


def test_early_stopping_ends_the_last_stage_after_evaluations_without_a_better_score(stopped_early: Run) -> None:
    """An equal score is not a better one; the stage before goes on though nothing becomes better there."""
    assert stopped_early.steps == list(range(1, LAST_STEP + 1))
    assert [event.step for event in stopped_early.told.of(Evaluated) if event.best] == [5, 6]
    assert stopped_early.told.events[-1] == PhaseDone("distill", 0.5)
    assert stopped_early.told.of(CheckpointWritten)[-1].step == LAST_STEP
    (note,) = stopped_early.told.of(Note)
    for part in (f"step {LAST_STEP} of 24", "stage-1", "2 evaluations", "stopping early"):
        assert part in note.text


@pytest.mark.parametrize("step", [2, 4, 5, 6, 7, 8])
def test_a_resumed_run_stops_early_at_the_same_place(step: int, stopped_early: Run, material: Material, tmp_path: Path) -> None:
    stopping_early(material).assert_resumed_equals(stopped_early, step, tmp_path)


def test_the_weights_of_the_best_evaluation_are_kept_when_stopping_early(
    stopped_early: Run, material: Material, tmp_path: Path
) -> None:
    course = stopping_early(material)
    best = Course(course.make, {**course.settings, "early_stopping": None}, [*SCORES[:6], *[0.1] * 18])
    assert differing(best.run(tmp_path).weights, stopped_early.weights) == []


@pytest.mark.parametrize(
    ("patience", "scores"), [(1, [0.3, 0.5, 0.5]), (2, [0.3, 0.2, 0.4, 0.3, 0.5, 0.4, 0.4]), (3, [0.3, 0.5, 0.4, 0.5, 0.3])]
)
def test_the_patience_is_counted_from_the_last_better_score(
    patience: int, scores: list[float], material: Material, tmp_path: Path
) -> None:
    """The stage ends with the last of these evaluations, one after every step."""
    settings = {"early_stopping": patience, "evaluations_per_epoch": 6}
    found = Course(stopping_early(material).make, settings, [*SCORES[:4], *scores]).run(tmp_path)
    assert found.steps[-1] == 4 + len(scores)


# One standard error of a share of 0.5 over the 40 dev rows is 0.079
@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.2, 0.50, 0.45, 0.43, 0.30], [1, 2, 3, 4]),  # the latest that is near the highest
        ([0.2, 0.50, 0.41, 0.43, 0.40], [1, 2, 4]),  # what falls out is not kept, what comes back is
        ([0.2, 0.50, 0.43, 0.36, 0.20], [1, 2, 3]),  # held against the highest, not against what is kept
        ([0.2, 0.30, 0.40, 0.50, 0.60], [1, 2, 3, 4, 5]),
    ],
)
def test_the_latest_weights_within_a_standard_error_of_the_best_are_kept(
    scores: list[float], kept: list[int], material: Material, tmp_path: Path
) -> None:
    made = phase(material, (4, 5), terms=labels_alone, teachers=False, dropout=0.1)
    error = (0.5 * 0.5 / len(made.dev)) ** 0.5
    scores = [round(0.5 - (0.5 - score) * error / 0.079, 6) for score in scores]
    settings = {"keep": "latest", "evaluations_per_epoch": 6}

    def course(scores: list[float], **more: Any) -> Course:
        return Course(
            lambda: phase(material, (4, 5), terms=labels_alone, teachers=False, dropout=0.1),
            settings | more,
            [*SCORES[:4], *scores],
        )

    run = course(scores).run(tmp_path / "latest")
    assert [event.step - 4 for event in run.told.of(Evaluated) if event.best] == kept
    assert run.told.events[-1] == PhaseDone("distill", scores[kept[-1] - 1])
    alone = [0.9 if row == kept[-1] else 0.1 for row in range(1, 6)]
    assert differing(course(alone, keep="best").run(tmp_path / "alone").weights, run.weights) == []
