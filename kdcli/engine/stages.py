"""What is trained, and in which stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kdcli.data.batching import Batch, Samples
from kdcli.losses.projection import Projections
from kdcli.losses.term import Term
from kdcli.models.output import Output, Wanted
from kdcli.plan.plan import StagePlan

Scores = dict[str, dict[str, float]]
Asking = Callable[[Batch, Mapping[str, Wanted]], dict[str, Output]]


@runtime_checkable
class ReadsAhead(Protocol):
    """Teachers that can look up answers before they are asked."""

    def fetch(self, batch: Batch) -> None:
        """Put the answers that are known into the batch; called from a thread beside the training."""

    def refresh(self) -> None:
        """Learn what other processes have found out; called at the begin of an epoch."""


@dataclass(frozen=True)
class Stage:
    """A stage as it is planned, and the terms that compute what it minimises."""

    plan: StagePlan
    terms: Sequence[Term]


@dataclass
class Phase:
    """One model and how it is trained.

    Attributes:
        name: keys its checkpoints and log entries.
        title: what a person reads.
        learner: what is trained; answers by model name.
        stages: one after the other.
        train, dev: tokenised splits.
        ensemble: the frozen teachers, or None; asked about a batch with what is needed of whom.
        projections: the learnable maps of all stages' terms.
        score: dev logits [n, C] by model → scores by model and metric.
        metric: the metric by which the best weights are kept, in the last stage.
        seed: of batches, dropout and projections.
    """

    name: str
    title: str
    learner: nn.Module
    stages: Sequence[Stage]
    train: Samples
    dev: Samples
    ensemble: Asking | None
    score: Callable[[Mapping[str, NDArray[np.float32]]], Scores]
    metric: str
    seed: int
    projections: Projections = field(default_factory=Projections)

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.plan.steps for stage in self.stages)
