"""The objective: a weighted sum of loss terms over what the learner and its teachers say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.engine.profile import Profile
from kdcli.losses.projection import Projections
from kdcli.losses.term import Term
from kdcli.models.output import Output, Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.schedule import Moment

ParameterKind = Literal["body", "head", "projection"]


def log_group(term: Term) -> str:
    """What a term's own figures are logged under; ``loss/`` holds the losses by name, whatever a term is called."""
    return "term/loss" if term.name == "loss" else term.name


class Learner(Protocol):
    """What is trained: a module that answers for one or several models by name."""

    def __call__(self, batch: Batch, needs: Mapping[str, Wanted] | None = None) -> dict[str, Output]:
        """Answers for a batch, with what is needed of the insides."""

    def fresh_parameters(self) -> list[str]:
        """Names of the parameters of a head that no pre-training has touched."""

    def depths(self) -> dict[str, int | str]:
        """Where each parameter stands: 0 the embeddings, 1… the blocks, ``head``; nothing where that is not known."""

    def owners(self) -> dict[str, str]:
        """Parameter → the model that it is of; nothing where there is one model."""


class Objective(nn.Module):
    """Learner, terms and their learnable maps in one module, so that one wrapper (mixed precision, DDP) holds what is trained.

    The maps are trained, clipped and checkpointed here and never saved into the student. All maps of a phase are here in
    every stage, so that a checkpoint has those that a later stage will use again.

    Attributes:
        weights: of the parts of all terms [parts], at the step that is being taken.
    """

    weights: Tensor

    def __init__(
        self,
        learner: nn.Module,
        terms: Sequence[Term],
        projections: Projections | None = None,
        profile: Profile | None = None,
    ) -> None:
        super().__init__()
        self.profile = profile or Profile()
        self.learner = learner
        self.terms = nn.ModuleList(terms)
        self.projections = Projections() if projections is None else projections
        self.register_buffer("weights", torch.zeros(self.parts), persistent=False)
        self._weights_now: list[float] = []
        self.begin(Moment())

    @property
    def parts(self) -> int:
        """How many parts all terms have together."""
        return sum(term.parts for term in self._terms())

    @property
    def group(self) -> int:
        """Samples that stay together when a batch is cut; 0 for the whole batch."""
        groups = [term.group for term in self._terms()]
        return 0 if 0 in groups else math.lcm(*groups)

    def begin(self, moment: Moment) -> None:
        """Tell the terms where in the stage the next step is, and take their weights from there."""
        weights: list[float] = []
        for term in self._terms():
            term.begin(moment)
            weights += [term.at_moment(term.weight)] * term.parts
        if weights != self._weights_now:
            self.weights.copy_(torch.tensor(weights), non_blocking=True)
            self._weights_now = weights
        self.needs = self._all_needs()

    def teacher_needs(self) -> dict[str, Wanted]:
        """What the next step asks of which teachers."""
        return {name: wanted for name, wanted in self.needs.items() if name != STUDENT}

    def counts(self, batch: Batch) -> Tensor:
        """Units [parts of all terms] in a batch."""
        return torch.cat([term.count(batch) for term in self._terms()])

    def forward(self, batch: Batch, outputs: Mapping[str, Output]) -> Tensor:
        """Totals [parts of all terms], before weights and before division by the counts."""
        outputs = {**outputs, **self.learner(batch, self.needs)}
        with self.profile.section("losses"), torch.autocast(batch.rows.device.type, enabled=False):
            return torch.cat([term(batch, outputs) for term in self._terms()])

    def observe(self, wanted: bool) -> None:
        """Ask the terms to leave figures worth logging at the next forward pass, or to leave it."""
        for term in self._terms():
            term.observing = wanted

    def observed(self) -> tuple[dict[str, float], list[str]]:
        """What the terms have left, by ``term/figure``, and what they have to say about it."""
        figures: dict[str, float] = {}
        remarks = []
        for term in self._terms():
            own = {key: value.item() for key, value in term.observed.items()}
            figures |= {f"{log_group(term)}/{key}": value for key, value in own.items()}
            if own:
                remarks.append(term.remark(own))
            term.observed.clear()
        return figures, [remark for remark in remarks if remark]

    def by_term(self, values: Tensor) -> dict[str, float]:
        """Values [parts of all terms] summed to one figure per term."""
        sums = [part.sum().item() for part in torch.split(values, [term.parts for term in self._terms()])]
        named: dict[str, float] = {}
        for term, value in zip(self._terms(), sums, strict=True):
            named[term.name] = named.get(term.name, 0.0) + value
        return named

    def scales(self) -> dict[str, float]:
        """By term, the value that it would have if each of its comparisons had the value 1."""
        named: dict[str, float] = {}
        for term in self._terms():
            named[term.name] = named.get(term.name, 0.0) + term.scale
        return named

    def kinds(self) -> dict[str, ParameterKind]:
        """Parameter name → which learning rate it takes: the learner's fresh parts are its head."""
        learner: Learner = self.learner  # type: ignore[assignment]
        fresh = {f"learner.{name}" for name in learner.fresh_parameters()}
        return {
            name: "projection" if name.startswith("projections.") else "head" if name in fresh else "body"
            for name, _ in self.named_parameters()
        }

    def depths(self) -> dict[str, int | str]:
        """Parameter name → where in the learner it stands."""
        learner: Learner = self.learner  # type: ignore[assignment]
        return {f"learner.{name}": depth for name, depth in learner.depths().items()}

    def owners(self) -> dict[str, str]:
        """Parameter name → the model that it is of, where several learn together."""
        learner: Learner = self.learner  # type: ignore[assignment]
        return {f"learner.{name}": owner for name, owner in learner.owners().items()}

    def freeze(self, places: Sequence[int | str]) -> None:
        """Let the learner's parameters at those places stay as they are, and all others move."""
        depths = self.depths()
        stays = {0 if place == "embeddings" else place for place in places}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in depths or depths[name] not in stays)

    def _all_needs(self) -> dict[str, Wanted]:
        needs: dict[str, list[Wanted]] = {}
        for term in self._terms():
            for name, wanted in term.needs().items():
                needs.setdefault(name, []).append(wanted)
        return {name: reduce(Wanted.__or__, wanted) for name, wanted in needs.items()}

    def _terms(self) -> list[Term]:
        return list(self.terms)  # type: ignore[arg-type]
