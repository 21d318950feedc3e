"""``hard-labels``: the gold labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Term
from kdcli.losses.term_classes import computes
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.hard_labels import HardLabels
from kdcli.recipe.term_plan import TermPlan
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind


@computes(HardLabels)
class HardLabelsTerm(Term):
    """Distance from the targets, mean over samples that have one, summed over the models that learn.

    What the distance is, the kind of task says: cross-entropy in nats where there are classes.

    One model when a student learns; all teachers when they are co-finetuned (MT-BERT, stage 1).

    Shapes: outputs [B, …], targets [B, …].
    """

    name = "hard-labels"

    def __init__(
        self,
        models: Sequence[str] = (STUDENT,),
        weight: float | Schedule = 1.0,
        name: str | None = None,
        kind: Kind = CLASSES,
    ) -> None:
        super().__init__(weight, name)
        self.kind = kind
        self.models = tuple(models)
        self.parts = len(self.models)
        self.scale = float(self.parts)

    @classmethod
    def planned(cls, loss: HardLabels, term: TermPlan, setting: Setting) -> Self:
        return cls(weight=loss.weight, name=loss.name, kind=setting.kind)

    def needs(self) -> dict[str, Wanted]:
        return {name: Wanted() for name in self.models}

    def count(self, batch: Batch) -> Tensor:
        assert batch.targets is not None
        return self.kind.labelled(batch.targets).sum().float().expand(self.parts)

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        assert batch.targets is not None
        targets = batch.targets
        return torch.stack([self.kind.hard_loss(outputs[name].logits, targets) for name in self.models])
