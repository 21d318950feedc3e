"""The objective: a weighted sum of loss terms over what the learner and its teachers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.losses.term import Term
from kdcli.models.output import Output

ParameterKind = Literal["body", "head", "projection"]


class Learner(Protocol):
    """What is trained: a module that answers for one or several models by name."""

    def __call__(self, batch: Batch) -> dict[str, Output]:
        """Answers for a batch."""

    def fresh_parameters(self) -> list[str]:
        """Names of the parameters that no pre-training has touched."""


class Objective(nn.Module):
    """Learner and terms in one module, so that one wrapper (mixed precision, DDP) holds all that is trained.

    Terms may have parameters of their own (projections); they are trained, clipped and checkpointed here and never saved into
    the student.
    """

    def __init__(self, learner: nn.Module, terms: Sequence[Term]) -> None:
        super().__init__()
        self.learner = learner
        self.terms = nn.ModuleList(terms)
        weights = [torch.full((term.parts,), term.weight) for term in terms]
        self.register_buffer("weights", torch.cat(weights), persistent=False)

    @property
    def parts(self) -> int:
        """How many parts all terms have together."""
        return sum(term.parts for term in self._terms())

    def counts(self, batch: Batch) -> Tensor:
        """Units [parts of all terms] in a batch."""
        return torch.cat([term.count(batch) for term in self._terms()])

    def forward(self, batch: Batch, answers: Mapping[str, Output]) -> Tensor:
        """Totals [parts of all terms], weighted, before division by the counts."""
        outputs = {**answers, **self.learner(batch)}
        with torch.autocast(batch.rows.device.type, enabled=False):
            totals = torch.cat([term(batch, outputs) for term in self._terms()])
        weights: Tensor = self.weights  # type: ignore[assignment]
        return totals * weights

    def observe(self, wanted: bool) -> None:
        """Ask the terms to leave figures worth logging at the next forward pass, or to leave it."""
        for term in self._terms():
            term.observing = wanted

    def observed(self) -> dict[str, float]:
        """What the terms have left, by ``term/figure``."""
        return {f"{term.name}/{key}": value.item() for term in self._terms() for key, value in term.observed.items()}

    def by_term(self, values: Tensor) -> dict[str, float]:
        """Values [parts of all terms] summed to one figure per term."""
        sums = [part.sum().item() for part in torch.split(values, [term.parts for term in self._terms()])]
        named: dict[str, float] = {}
        for term, value in zip(self._terms(), sums, strict=True):
            named[term.name] = named.get(term.name, 0.0) + value
        return named

    def kinds(self) -> dict[str, ParameterKind]:
        """Parameter name → which learning rate it takes: the learner's fresh parts are its head, terms hold projections."""
        learner: Learner = self.learner  # type: ignore[assignment]
        fresh = {f"learner.{name}" for name in learner.fresh_parameters()}
        return {
            name: "projection" if name.startswith("terms.") else "head" if name in fresh else "body"
            for name, _ in self.named_parameters()
        }

    def _terms(self) -> list[Term]:
        return list(self.terms)  # type: ignore[arg-type]
