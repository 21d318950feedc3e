"""Learner and terms in one module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdcli.data.batching import Batch
from kdcli.engine.objective import Objective
from kdcli.losses.hidden import HiddenMseTerm
from kdcli.losses.labels import HardLabelsTerm, SoftLabelsTerm
from kdcli.losses.term import Outputs
from tests.engine.phases import PAIRS, WIDTHS, Material, all_terms, ensemble, student, train_samples


@pytest.fixture(scope="module")
def material(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Material:
    return Material(tiny_bert, tiny_roberta, tiny_data)


@pytest.fixture
def objective(material: Material) -> Objective:
    return Objective(student(material, 0), all_terms()).eval()


def answered(material: Material, objective: Objective) -> tuple[Batch, Outputs, Outputs]:
    """A batch, what the teachers say of it, and what all say of it."""
    batch = train_samples(material).batch(range(6))
    answers = ensemble(material)(batch)
    return batch, answers, {**answers, **objective.learner(batch)}


def test_it_returns_every_terms_weighted_totals_in_order(material: Material, objective: Objective) -> None:
    batch, answers, outputs = answered(material, objective)
    terms: list[Any] = list(objective.terms)
    assert [term.parts for term in terms] == [1, 2, 2]
    expected = torch.cat([term.weight * term(batch, outputs) for term in terms])
    assert terms[2].weight == 0.5
    assert torch.allclose(objective(batch, answers), expected)
    assert torch.equal(objective.counts(batch), torch.cat([term.count(batch) for term in terms]))


def test_parts_are_summed_to_one_figure_per_term_and_equal_names_together(material: Material) -> None:
    pairs = {"bert": {1: 2}, "roberta": {1: 3}}
    terms = [HardLabelsTerm(), HiddenMseTerm(pairs, 32, WIDTHS), SoftLabelsTerm(["bert"]), HiddenMseTerm(pairs, 32, WIDTHS)]
    named = Objective(student(material, 0), terms).by_term(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    assert named == {"hard-labels": 1.0, "hidden-mse": 54.0, "soft-labels": 8.0}


def test_terms_observe_only_when_asked(material: Material, objective: Objective) -> None:
    batch, answers, _ = answered(material, objective)
    objective(batch, answers)
    assert objective.observed() == {}
    objective.observe(True)
    objective(batch, answers)
    seen = objective.observed()
    assert {f"soft-labels/weight-mean/{name}" for name in PAIRS} <= seen.keys()
    assert {f"hidden-mse/projected-std/{name}-{row}" for name, rows in PAIRS.items() for row in rows} <= seen.keys()
    objective.observe(False)
    more = train_samples(material).batch(range(6, 9))
    objective(more, ensemble(material)(more))
    assert objective.observed() == seen


def test_the_fresh_head_and_the_projections_have_kinds_of_their_own(objective: Objective) -> None:
    kinds = objective.kinds()
    assert set(kinds) == {name for name, _ in objective.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == "head"} == {
        "learner.model.classifier.weight",
        "learner.model.classifier.bias",
    }
    assert {name for name, kind in kinds.items() if kind == "projection"} == {
        f"terms.2.projections.{name}-{row}.weight" for name, rows in PAIRS.items() for row in rows
    }


def test_weights_of_terms_are_no_state(objective: Objective) -> None:
    """A checkpoint must not bring back the weights of another recipe."""
    assert all(name.startswith(("learner.", "terms.2.projections.")) for name in objective.state_dict())


def test_terms_compute_in_fp32_under_autocast(material: Material, objective: Objective) -> None:
    batch, answers, _ = answered(material, objective)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        totals = objective(batch, answers)
        logits = objective.learner(batch)["student"].logits
    assert logits.dtype == torch.bfloat16
    assert totals.dtype == torch.float32
    assert torch.allclose(totals, objective(batch, answers), rtol=0.05)
