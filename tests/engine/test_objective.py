"""Learner, terms and their projections in one module."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdcli.data.batching import Batch
from kdcli.engine.objective import Objective
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Outputs
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.schedule import Moment
from tests.engine.phases import (
    PAIRS,
    WIDTHS,
    Material,
    all_terms,
    changing,
    ensemble,
    every_loss,
    student,
    train_samples,
)


@pytest.fixture
def objective(material: Material) -> Objective:
    bank = Projections()
    return Objective(student(material, 0), all_terms(bank), bank).eval()


def answered(material: Material, objective: Objective) -> tuple[Batch, Outputs, Outputs]:
    """A batch, what the teachers say of it, and what all say of it."""
    batch = train_samples(material).batch(range(6))
    answers = ensemble(material)(batch, objective.teacher_needs())
    return batch, answers, {**answers, **objective.learner(batch, objective.needs)}


def test_it_returns_every_terms_totals_in_order_without_their_weights(material: Material, objective: Objective) -> None:
    batch, answers, outputs = answered(material, objective)
    terms: list[Any] = list(objective.terms)
    assert [term.parts for term in terms] == [1, 2, 2]
    assert [term.weight for term in terms] == [1.0, 1.0, 0.5]
    assert torch.allclose(objective(batch, answers), torch.cat([term(batch, outputs) for term in terms]))
    assert torch.equal(objective.counts(batch), torch.cat([term.count(batch) for term in terms]))
    assert objective.weights.tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]


def test_weights_that_change_are_those_of_the_step_at_hand(material: Material) -> None:
    terms = [HardLabelsTerm(weight=changing(1.0, 3.0)), SoftLabelsTerm(list(PAIRS), weight=changing(0.0, 1.0, every="epoch"))]
    objective = Objective(student(material, 0), terms)
    found = []
    for step in range(5):
        objective.begin(Moment(step, 5, epoch=step // 3, epochs=2))
        found.append(objective.weights.tolist())
    assert found == [[1.0, 0.0, 0.0], [1.5, 0.0, 0.0], [2.0, 0.0, 0.0], [2.5, 1.0, 1.0], [3.0, 1.0, 1.0]]


def test_it_needs_what_any_of_its_terms_needs(material: Material) -> None:
    bank = Projections()
    objective = Objective(student(material, 0), every_loss(bank), bank)
    objective.begin(Moment(3, 9, epoch=1, epochs=2, seed=4))
    inside = {
        name: {kind: frozenset(layers) for kind in ("attention", "scores", "queries", "keys", "values")}
        for name, layers in {STUDENT: (1, 2), "bert": (2, 4), "roberta": (3, 6)}.items()
    }
    hidden = {STUDENT: {1, 2}, "bert": {2, 4}, "roberta": {3, 6}}
    random_layers: Any = objective.terms[-1]
    assert objective.needs == {
        name: Wanted(hidden=frozenset(layers) | frozenset(random_layers.chosen.get(name, ())), **inside[name])
        for name, layers in hidden.items()
    }
    assert objective.teacher_needs().keys() == {"bert", "roberta"}


def test_parts_are_summed_to_one_figure_per_term_and_equal_names_together(material: Material) -> None:
    pairs, bank = {"bert": {1: 2}, "roberta": {1: 3}}, Projections()
    hidden = [HiddenMseTerm(pairs, 32, WIDTHS, bank, "teacher", teacher_reduction=how) for how in ("mean", "sum")]
    terms = [HardLabelsTerm(), hidden[0], SoftLabelsTerm(["bert"]), hidden[1]]
    objective = Objective(student(material, 0), terms, bank)
    named = objective.by_term(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    assert named == {"hard-labels": 1.0, "hidden-mse": 54.0, "soft-labels": 8.0}
    assert objective.scales() == {"hard-labels": 1.0, "hidden-mse": 1.0 + 2.0, "soft-labels": 1.0}


@pytest.mark.parametrize(("groups", "expected"), [([], 1), ([None], 0), ([4], 4), ([3, 6], 6), ([4, None], 0), ([4, 6], 12)])
def test_samples_that_any_term_compares_stay_together(groups: list[int | None], expected: int, material: Material) -> None:
    terms = [HardLabelsTerm(), *(RelationalTerm(PAIRS, group=group) for group in groups)]
    assert Objective(student(material, 0), terms).group == expected


def test_terms_observe_only_when_asked(material: Material, objective: Objective) -> None:
    batch, answers, _ = answered(material, objective)
    objective(batch, answers)
    assert objective.observed() == ({}, [])
    objective.observe(True)
    objective(batch, answers)
    seen, remarks = objective.observed()
    assert {f"soft-labels/weight-mean/{name}" for name in PAIRS} <= seen.keys()
    assert {f"hidden-mse/projected-std/{name}-{row}" for name, rows in PAIRS.items() for row in rows} <= seen.keys()
    assert remarks == []
    assert objective.observed() == ({}, [])
    objective.observe(False)
    objective(batch, answers)
    assert objective.observed() == ({}, [])


def test_the_fresh_head_and_the_projections_have_kinds_of_their_own(objective: Objective) -> None:
    kinds = objective.kinds()
    assert set(kinds) == {name for name, _ in objective.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == "head"} == {
        "learner.model.classifier.weight",
        "learner.model.classifier.bias",
    }
    assert {name for name, kind in kinds.items() if kind == "projection"} == {
        f"projections.hidden-mse/teacher/{name}/{ours}-{theirs}.weight"
        for name, rows in PAIRS.items()
        for ours, theirs in rows.items()
    }


def test_every_parameter_of_the_student_has_its_place_and_no_other_has_one(objective: Objective) -> None:
    places = {
        "learner.model.bert.embeddings.": 0,
        "learner.model.bert.encoder.layer.0.": 1,
        "learner.model.bert.encoder.layer.1.": 2,
        "learner.model.bert.pooler.": "head",
        "learner.model.classifier.": "head",
    }
    depths = objective.depths()
    assert depths.keys() == {name for name, _ in objective.named_parameters() if name.startswith("learner.")}
    assert all(
        depth == next(place for begin, place in places.items() if name.startswith(begin)) for name, depth in depths.items()
    )
    assert set(depths.values()) == set(places.values())


def test_weights_of_terms_are_no_state(objective: Objective) -> None:
    """A checkpoint must not bring back the weights of another recipe."""
    assert all(name.startswith(("learner.", "projections.")) for name in objective.state_dict())


def test_terms_compute_in_fp32_under_autocast(material: Material, objective: Objective) -> None:
    batch, answers, _ = answered(material, objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        totals = objective(batch, answers)
        logits = objective.learner(batch)[STUDENT].logits
    assert logits.dtype == torch.bfloat16
    assert totals.dtype == torch.float32
    assert torch.allclose(totals, objective(batch, answers), rtol=0.05)
