"""``logits-mse``: the teachers' logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Reduction, Term, share_of
from kdcli.losses.term_classes import computes
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.logits_mse import LogitsMse
from kdcli.recipe.term_plan import TermPlan


@computes(LogitsMse)
class LogitsMseTerm(Term):
    """Mean squared difference (z_S − φ·z_T)² of the logits, mean over samples and classes.

    With φ rising to 1 over the stage: Annealing KD, stage 1 (Jafari et al. 2021, eq. 4).

    Shapes: logits [B, C] on both sides.
    """

    name = "logits-mse"

    def __init__(
        self,
        teachers: Sequence[str],
        factor: float | Schedule = 1.0,
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name)
        self.teachers = tuple(teachers)
        self.parts = len(self.teachers)
        self.factor = factor
        self.share = share_of(self.parts, teacher_reduction)
        self.scale = self.share * self.parts

    @classmethod
    def planned(cls, loss: LogitsMse, term: TermPlan, setting: Setting) -> Self:
        return cls(term.teachers, loss.factor, loss.teacher_reduction, loss.weight, loss.name)

    def needs(self) -> dict[str, Wanted]:
        return {name: Wanted() for name in (STUDENT, *self.teachers)}

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        factor = self.at_moment(self.factor)
        ours = outputs[STUDENT].logits.float()
        errors = [(ours - factor * outputs[name].logits.float()).square().mean(-1).sum() for name in self.teachers]
        return torch.stack(errors) * self.share
