"""``hard-labels``: the gold labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.data.batching import Batch
from kdcli.data.task import NO_LABEL
from kdcli.losses.registry import computes
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Term
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.hard_labels import HardLabels
from kdcli.recipe.planned import TermPlan


@computes(HardLabels)
class HardLabelsTerm(Term):
    """Cross-entropy against the gold label in nats, mean over samples that have one, summed over the models that learn.

    One model when a student learns; all teachers when they are co-finetuned (MT-BERT, stage 1).

    Shapes: logits [B, C], labels [B].
    """

    name = "hard-labels"

    def __init__(self, models: Sequence[str] = (STUDENT,), weight: float | Schedule = 1.0, name: str | None = None) -> None:
        super().__init__(weight, name)
        self.models = tuple(models)
        self.parts = len(self.models)
        self.scale = float(self.parts)

    @classmethod
    def planned(cls, loss: HardLabels, term: TermPlan, setting: Setting) -> Self:
        return cls(weight=loss.weight, name=loss.name)

    def needs(self) -> dict[str, Wanted]:
        return {name: Wanted() for name in self.models}

    def count(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return (batch.labels != NO_LABEL).sum().float().expand(self.parts)

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        assert batch.labels is not None
        losses = [
            functional.cross_entropy(outputs[name].logits.float(), batch.labels, reduction="sum", ignore_index=NO_LABEL)
            for name in self.models
        ]
        return torch.stack(losses)
