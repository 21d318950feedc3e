"""A gradient that is infinite or not a number: the run stops and says where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.errors import RunFailedError
from kdcli.losses.hidden import HiddenMseTerm
from kdcli.losses.labels import HardLabelsTerm
from kdcli.losses.projection import Projections
from kdcli.losses.term import Outputs, Term
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.schema import Schedule
from tests.engine.phases import (
    WIDTHS,
    Material,
    Part,
    all_terms,
    changing,
    differing,
    labels_alone,
    phase,
    trainer,
    weights,
)


class FiniteValueWithoutGradient(Term):
    """√0: the value is 0, the slope infinite."""

    name = "square-root"

    def needs(self) -> dict[str, Wanted]:
        return {STUDENT: Wanted()}

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor([float(len(batch))])

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        logits = outputs[STUDENT].logits
        return (logits - logits.detach()).square().sum().sqrt()[None]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_gradient_that_is_not_finite_is_blamed_on_its_term_alone(
    accumulation: int, material: Material, tmp_path: Path
) -> None:
    trained = phase(material, terms=lambda bank: [HardLabelsTerm(), FiniteValueWithoutGradient(), *all_terms(bank)[1:]])
    with pytest.raises(RunFailedError) as failure:
        trainer(tmp_path, accumulation=accumulation).run(trained)
    assert "distill, step 1: the gradient is not finite; it comes from square-root." in str(failure.value)


def test_after_a_gradient_that_is_not_finite_the_weights_are_untouched(material: Material, tmp_path: Path) -> None:
    trained = phase(material, terms=lambda bank: [FiniteValueWithoutGradient()])
    before = weights(trained)
    with pytest.raises(RunFailedError, match="square-root"):
        trainer(tmp_path).run(trained)
    assert differing(weights(trained), before) == []


class ExplodesAtStep(HardLabelsTerm):
    """The cross-entropy, times infinity from the third forward pass on."""

    passes = 0

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        self.passes += 1
        return super().forward(batch, outputs) * (float("inf") if self.passes > 2 else 1.0)


def test_the_step_of_a_gradient_that_is_not_finite_is_counted_over_all_stages(material: Material, tmp_path: Path) -> None:
    parts = [Part(4, labels_alone), Part(4, lambda bank: [ExplodesAtStep()])]
    with pytest.raises(RunFailedError, match="step 7"):
        trainer(tmp_path).run(phase(material, parts, teachers=False))


@pytest.mark.parametrize("weight", [changing(0.5, 2.0), changing(0.0, 1.0)])
def test_it_is_blamed_on_its_term_when_weights_change(weight: Schedule, material: Material, tmp_path: Path) -> None:
    """Infinity times a weight of zero is not a number either."""
    made = phase(material, terms=lambda bank: [HardLabelsTerm(weight=weight), FiniteValueWithoutGradient(weight=weight)])
    with pytest.raises(RunFailedError, match=r"it comes from square-root\."):
        trainer(tmp_path).run(made)


class GrowsBeyondAllNumbers(HardLabelsTerm):
    """The cross-entropy times a weight that overflows on its way."""

    name = "overflow"

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        return super().forward(batch, outputs) * 1e38


def test_a_weight_that_grows_too_large_is_blamed_on_its_term(material: Material, tmp_path: Path) -> None:
    made = phase(material, terms=lambda _: [HardLabelsTerm(), GrowsBeyondAllNumbers(weight=changing(1e-38, 1e4, begin=0.5))])
    with pytest.raises(RunFailedError, match=r"step [456]: the gradient is not finite; it comes from overflow\."):
        trainer(tmp_path).run(made)


def embeddings_alone(_: Projections) -> list[Term]:
    """A loss that has no gradient where the embeddings are frozen, beside one whose gradient is infinite."""
    return [HiddenMseTerm({"bert": {0: 0}}, 32, WIDTHS), FiniteValueWithoutGradient()]


def test_it_is_blamed_on_its_term_where_another_term_reaches_frozen_parts_alone(material: Material, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"it comes from square-root\."):
        trainer(tmp_path).run(phase(material, [Part(2, embeddings_alone, freeze=["embeddings"])]))
