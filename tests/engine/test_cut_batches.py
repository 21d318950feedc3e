"""A batch that is cut, over accumulation and over processes, is the same step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdcli.engine.events import Logged
from kdcli.losses.projection import Projections
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.term import Term
from tests.engine.launching import run_in_two_processes
from tests.engine.phases import (
    Listening,
    Material,
    Terms,
    Told,
    differing,
    ensemble,
    every_loss,
    phase,
    trainer,
    weights,
)
from tests.engine.two_processes import CASES, trained


@dataclass(frozen=True)
class Result:
    """What three steps of eight samples give.

    Attributes:
        weights: at the end.
        figures: loss and gradient norm of every step.
        sizes: how many samples the teachers were asked about at a time.
    """

    weights: dict[str, Tensor]
    figures: list[float]
    sizes: list[int]


def run(material: Material, folder: Path, terms: Terms, accumulation: int = 1) -> Result:
    """Train three steps."""
    made, listening, told = phase(material, (3,), terms=terms), Listening(ensemble(material)), Told()
    made.ensemble = listening
    trainer(folder, told, accumulation=accumulation, evaluations_per_epoch=1).run(made)
    figures = [event.values[key] for event in told.of(Logged) for key in ("loss", "gradient-norm")]
    return Result(weights(made), figures, [len(rows) for rows, _ in listening.asked])


def one_by_one(bank: Projections) -> list[Term]:
    """Every loss that looks at each sample alone."""
    return [term for term in every_loss(bank) if not isinstance(term, RelationalTerm)]


def whole_batch(bank: Projections) -> list[Term]:
    """Every loss, and the relations between all samples of a batch."""
    return every_loss(bank, group=None)


Uncut = dict[Terms, Result]


@pytest.fixture(scope="module")
def uncut(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    """What comes out of whole batches of eight."""
    folder = tmp_path_factory.mktemp("uncut")
    kinds: list[Terms] = [every_loss, one_by_one, whole_batch]
    return {terms: run(material, folder / str(row), terms) for row, terms in enumerate(kinds)}


@pytest.mark.parametrize(
    ("terms", "accumulation", "sizes"),
    [
        (every_loss, 2, [3, 5]),
        (every_loss, 8, [3, 3, 2]),
        (one_by_one, 8, [1] * 8),
    ],
)
def test_one_batch_of_eight_equals_its_parts(
    terms: Terms, accumulation: int, sizes: list[int], uncut: Uncut, material: Material, tmp_path: Path
) -> None:
    """Of all losses together; samples that are compared are never parted, however many parts are asked for."""
    found = run(material, tmp_path, terms, accumulation)
    assert uncut[terms].sizes == [8] * 3
    assert found.sizes == sizes * 3
    assert differing(found.weights, uncut[terms].weights, 1e-5) == []
    assert found.figures == pytest.approx(uncut[terms].figures, rel=1e-4)
    start = weights(phase(material, terms=terms))
    assert differing(found.weights, start, 1e-5) == list(start)


def test_relations_within_the_whole_batch_keep_it_whole(uncut: Uncut, material: Material, tmp_path: Path) -> None:
    found = run(material, tmp_path, whole_batch, accumulation=4)
    assert found.sizes == [8] * 3
    assert differing(found.weights, uncut[whole_batch].weights) == []
    assert differing(found.weights, uncut[every_loss].weights, 1e-5) != []


@pytest.fixture(scope="module")
def together(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what came out of every case."""
    folder = tmp_path_factory.mktemp("together")
    run_in_two_processes("tests.engine.two_processes", material.bert, material.roberta, material.data, folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, together: Path, material: Material, tmp_path: Path) -> None:
    """Half the batch each: with accumulation, uneven shares, a batch smaller than the processes, and stages of all kinds."""
    two = torch.load(together / f"{name}.pt")
    processes, one = trained(CASES[name], material, tmp_path, cut=False)
    assert processes == 1
    assert differing(two["weights"], one["weights"], 1e-5) == []
    assert two["losses"] == [pytest.approx(values, rel=1e-4) for values in one["losses"]]
    for key in ("score", "steps", "evaluated", "notes"):
        assert two[key] == one[key]


def test_the_cases_of_two_processes_hold_a_stage_that_ends_early(together: Path) -> None:
    found = torch.load(together / "stages.pt")
    assert found["steps"] == [1, 2, 3, 9, 10, 11, 12]
    assert len(found["notes"]) == 1
