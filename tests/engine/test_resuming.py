"""A run that was stopped goes on as if it had never been."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from kdcli.engine import checkpoint
from kdcli.engine.events import Note, StepDone
from kdcli.errors import InterruptedRunError
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Term
from tests.engine.phases import (
    DEPTHS,
    WIDTHS,
    Material,
    Part,
    Told,
    changing,
    differing,
    labels_alone,
    phase,
    stopping_at,
    trainer,
    weights,
)
from tests.engine.resuming import Course, Run


def changing_and_drawn(bank: Projections) -> list[Term]:
    """Weights that change, a teacher drawn per step, layers drawn per epoch."""
    chances = {"bert": 0.5, "roberta": 0.5}
    return [
        HardLabelsTerm(weight=changing(2.0, 0.5)),
        SoftLabelsTerm(list(chances), temperature=changing(1.0, 4.0), chances=chances),
        RandomLayersTerm(2, 32, DEPTHS, WIDTHS, bank, width=8, weight=changing(0.0, 1.0, every="epoch")),
    ]


def lower_layer(bank: Projections) -> list[Term]:
    return [HiddenMseTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "student")]


@cache
def courses(material: Material) -> dict[str, Course]:
    """Each of them once more what the others are not."""
    own = [
        Part(9, changing_and_drawn, freeze=["embeddings"], warmup=0.5, schedule="cosine"),
        Part(3, lower_layer, freeze=[1]),
    ]
    return {
        "two-stages": Course(lambda: phase(material, (5, 6), dropout=0.1)),
        "changing": Course(lambda: phase(material, own, dropout=0.1), {"accumulation": 2, "layer_decay": 0.5}),
    } | {
        name: Course(lambda: phase(material, (3, 3), dropout=0.1), {"optimizer": {"name": name}})
        for name in ("adafactor", "sgd")
    }


@pytest.fixture(scope="module")
def uninterrupted(material: Material, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return {name: course.run(folder / name) for name, course in courses(material).items()}


@pytest.mark.parametrize(
    ("course", "step"),
    [
        *(("two-stages", step) for step in (1, 4, 5, 6, 8, 11)),
        *(("changing", step) for step in (4, 7, 9, 10)),
        *((name, step) for name in ("adafactor", "sgd") for step in (2, 5)),
    ],
)
def test_resumed_run_equals_uninterrupted_run(
    course: str, step: int, uninterrupted: dict[str, Run], material: Material, tmp_path: Path
) -> None:
    """Stopped between and at evaluations, at the end of a stage and at the very end."""
    courses(material)[course].assert_resumed_equals(uninterrupted[course], step, tmp_path)


def test_a_run_that_was_ended_at_once_goes_on_from_its_last_checkpoint(
    uninterrupted: dict[str, Run], material: Material, tmp_path: Path
) -> None:
    courses(material)["two-stages"].assert_killed_equals(uninterrupted["two-stages"], 3, 2, tmp_path)


def test_a_wish_to_stop_is_answered_at_once_and_met_after_the_step(material: Material, tmp_path: Path) -> None:
    told = stopping_at(2)
    with pytest.raises(InterruptedRunError, match="stopped at step 2 of 4"):
        trainer(tmp_path, told).run(phase(material, (4,), terms=labels_alone, teachers=False))
    (note,) = told.of(Note)
    assert note.warning
    assert "stopping after this step" in note.text
    assert told.of(StepDone)[-1].step == 2


@pytest.mark.parametrize("step", range(1, 8))
def test_the_state_is_saved_at_whatever_step_the_stop_comes(step: int, material: Material, tmp_path: Path) -> None:
    running = trainer(tmp_path, stopping_at(step), evaluations_per_epoch=1)
    with pytest.raises(InterruptedRunError, match="the state is saved"):
        running.run(phase(material, (7,), teachers=False, terms=labels_alone))
    state = checkpoint.load(tmp_path / "checkpoints" / "distill")
    assert state is not None
    assert state.position.step == step


def test_a_finished_phase_is_not_trained_again(material: Material, tmp_path: Path) -> None:
    first, again, told = phase(material), phase(material), Told()
    score = trainer(tmp_path).run(first)
    assert trainer(tmp_path, told).run(again) == score
    assert told.of(StepDone) == []
    assert differing(weights(first), weights(again)) == []
