"""Learnable maps: trained with the student, shared by the stages, never part of the student."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdcli.engine.events import Event, StepDone
from kdcli.errors import InterruptedRunError
from kdcli.losses.hidden_cosine import HiddenCosineTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.term import Term
from tests.engine.phases import (
    DEPTHS,
    PAIRS,
    WIDTHS,
    Material,
    Part,
    Told,
    checkpoint_weights,
    differing,
    labels_alone,
    phase,
    stopping_at,
    trainer,
    weights,
)
from tests.engine.resuming import Course, Run


def test_projections_are_trained_and_not_part_of_the_learner(material: Material, tmp_path: Path) -> None:
    trained, start = phase(material), weights(phase(material))
    trainer(tmp_path).run(trained)
    projections = [name for name in start if name.startswith("projections.")]
    moved = differing(weights(trained), start, 1e-4)
    assert len(projections) == 4
    assert set(projections) <= set(moved)
    assert not any("projection" in name for name in trained.learner.state_dict())
    assert sum("projections" in name for name in checkpoint_weights(tmp_path)) == 4


def both_layers(bank: Projections) -> list[Term]:
    return [HiddenMseTerm(PAIRS, 32, WIDTHS, bank, "teacher")]


def lower_layer(bank: Projections) -> list[Term]:
    return [HiddenMseTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "teacher")]


LOWER = "projections.hidden-mse/teacher/roberta/1-3.weight"
PARTS = [Part(2, lower_layer), Part(2, labels_alone), Part(2, both_layers)]


@pytest.fixture(scope="module")
def states(material: Material, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Weights at the start and at the end of every stage."""
    made = phase(material, PARTS, dropout=0.1)
    found = [weights(made)]

    def remember(event: Event) -> None:
        if isinstance(event, StepDone) and event.step % 2 == 0:
            found.append(weights(made))

    trainer(tmp_path_factory.mktemp("states"), Told(remember), weight_decay=0.3).run(made)
    return found


def test_a_stage_goes_on_with_the_map_that_an_earlier_one_has_trained(states: list[dict[str, Tensor]]) -> None:
    """The stage between them looks at gold labels alone: there the maps do not even decay."""
    assert sum(name.startswith("projections.") for name in states[0]) == 4
    moved = [
        {name for name in differing(before, after) if name.startswith("projections.")} for before, after in pairwise(states)
    ]
    assert moved[0] == {LOWER}
    assert moved[1] == set()
    assert moved[2] == {name for name in states[0] if name.startswith("projections.")}
    assert torch.equal(states[2][LOWER], states[1][LOWER])
    assert torch.allclose(states[3][LOWER], states[2][LOWER], atol=1e-2)
    assert not torch.allclose(states[1][LOWER], states[0][LOWER], atol=1e-4)


@pytest.fixture(scope="module")
def course(material: Material) -> Course:
    return Course(lambda: phase(material, PARTS, dropout=0.1), {"weight_decay": 0.3})


@pytest.fixture(scope="module")
def whole(course: Course, states: list[dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = course.run(tmp_path_factory.mktemp("whole"))
    assert torch.equal(run.weights[LOWER], states[3][LOWER])
    return run


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_the_map_goes_on_after_a_stop_in_any_stage(step: int, course: Course, whole: Run, tmp_path: Path) -> None:
    course.assert_resumed_equals(whole, step, tmp_path)


def test_a_checkpoint_of_a_stage_without_projections_has_those_of_the_others(
    states: list[dict[str, Tensor]], material: Material, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        trainer(tmp_path, stopping_at(3), weight_decay=0.3).run(phase(material, PARTS, dropout=0.1))
    saved = {name: tensor for name, tensor in checkpoint_weights(tmp_path).items() if name.startswith("projections.")}
    assert differing(saved, {name: states[1][name] for name in saved}) == []
    assert len(saved) == 4


def test_terms_share_a_map_by_name_side_teacher_and_layers_and_no_other() -> None:
    bank = Projections()
    first = HiddenMseTerm(PAIRS, 32, WIDTHS, bank, "teacher")
    again = HiddenMseTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "teacher", tokens="mean")
    assert again.projections["roberta", 1, 3] is first.projections["roberta", 1, 3]
    before = len(bank)
    for other in (
        HiddenMseTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "student"),
        HiddenMseTerm({"roberta": {1: 4}}, 32, WIDTHS, bank, "teacher"),
        HiddenMseTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "teacher", name="other"),
        HiddenMseTerm({"roberta": {1: 3, 2: 6}}, 32, WIDTHS, bank, "teacher", "per-teacher"),
        HiddenCosineTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "teacher"),
    ):
        assert not set(map(id, other.projections.values())) & set(map(id, first.projections.values()))
    assert len(bank) == before + 5


def test_maps_of_unlike_widths_are_not_the_same_map() -> None:
    """Two stages with random layers, the second one to another width and in one vector."""
    bank = Projections()
    pairs = [RandomLayersTerm(3, 32, DEPTHS, WIDTHS, bank, width=width) for width in (8, 16)]
    widths = [{map_.out_features for map_ in term.projections.values()} for term in pairs]
    assert widths == [{8}, {16}]
    together = RandomLayersTerm(3, 32, DEPTHS, WIDTHS, bank, width=8, concatenated=True)
    assert {map_.in_features for (_, side, _), map_ in together.projections.items() if side == "student"} == {64}
