"""What all losses share that compare a student's layers with those of its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.term import Outputs, Reduction, Term, share_of
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.loss import LayerLoss

Pairs = Mapping[int, int]


class LayerTerm(Term):
    """A comparison of matched layers, one part per teacher: Σ or mean over teachers of Σ or mean over layers.

    Args:
        pairs: teacher name → {student layer: teacher layer}, 0 is the embeddings.
        layer_reduction, teacher_reduction: how the values of layers and teachers become one.
        weight: factor in the objective.
        name: in logs, where it is not the loss's own.
    """

    kinds: tuple[str, ...] = ()

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        layer_reduction: Reduction = "sum",
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name)
        self.pairs = {teacher: dict(rows) for teacher, rows in pairs.items()}
        self.parts = len(self.pairs)
        share = share_of(len(self.pairs), teacher_reduction)
        self.factors = {teacher: share * share_of(len(rows), layer_reduction) for teacher, rows in self.pairs.items()}
        self.scale = sum(factor * len(self.pairs[teacher]) for teacher, factor in self.factors.items())

    @staticmethod
    def common(loss: LayerLoss) -> dict[str, Any]:
        """The arguments that every such term takes from its loss."""
        return {
            "layer_reduction": loss.layer_reduction,
            "teacher_reduction": loss.teacher_reduction,
            "weight": loss.weight,
            "name": loss.name,
        }

    def needs(self) -> dict[str, Wanted]:
        student, wanted = Wanted(), {}
        for teacher, rows in self.pairs.items():
            wanted[teacher] = Wanted()
            for kind in self.kinds:
                student |= Wanted.of(kind, rows)
                wanted[teacher] |= Wanted.of(kind, rows.values())
        return {STUDENT: student, **wanted}

    def count(self, batch: Batch) -> Tensor:
        return torch.stack([self.units(batch, teacher) for teacher in self.pairs])

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        totals = []
        for teacher, rows in self.pairs.items():
            total = torch.zeros((), device=batch.rows.device)
            for student_layer, teacher_layer in rows.items():
                total = total + self.compare(batch, outputs, teacher, student_layer, teacher_layer)
            totals.append(total * self.factors[teacher])
        return torch.stack(totals)

    def units(self, batch: Batch, teacher: str) -> Tensor:
        """Number of units (scalar, fp32) over which a comparison with that teacher is a total."""
        raise NotImplementedError

    def compare(self, batch: Batch, outputs: Outputs, teacher: str, student_layer: int, teacher_layer: int) -> Tensor:
        """Total (scalar, fp32) over the units for one pair of layers."""
        raise NotImplementedError


def matched_tokens(batch: Batch, teacher: str) -> Tensor:
    """[B, L_S], True on real student tokens that have a counterpart in the teacher's text."""
    return (batch.views[STUDENT]["attention_mask"] > 0) & batch.runs[teacher].matched()


def pooled(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """States [B, L, D] as one vector per sample [B, D]: the first token (``cls``) or the mean over real tokens (``mean``)."""
    if how == "cls":
        return states[:, 0]
    real = mask[..., None].to(states.dtype)
    return (states * real).sum(1) / real.sum(1)
