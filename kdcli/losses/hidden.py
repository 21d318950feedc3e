"""Losses on hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.losses.term import Capture, Outputs, Term
from kdcli.models.student import STUDENT

Pairs = Mapping[int, int]


class HiddenMseTerm(Term):
    """Mean squared error between matched hidden states, summed over teachers and matched layers.

    L_hid = Σ_i Σ_j MSE(H^S_j, W_ij · P_i · H^i_m(j)) (MT-BERT, eq. 4): the mean runs over the width and over the real student
    tokens that have a counterpart in that teacher's text; P_i is the alignment of the two tokenizers, W a learnable map
    without bias. W on the teacher's side can shrink both sides to nothing; ``projected-std`` in the log shows it.

    Shapes: student [B, L_S, D_S], teacher [B, L_T, D_T].

    Args:
        pairs: teacher name → {student layer: teacher layer}, 0 is the embeddings.
        student_width, teacher_widths: D_S, and D_T by teacher name.
        side: whose states are projected, or None for no projection.
        share: one matrix per pair of layers, or one per teacher.
    """

    name = "hidden-mse"

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        student_width: int,
        teacher_widths: Mapping[str, int],
        side: Literal["teacher", "student"] | None = "teacher",
        share: Literal["per-layer", "per-teacher"] = "per-layer",
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.pairs = {name: dict(rows) for name, rows in pairs.items()}
        self.parts = len(self.pairs)
        self.side, self.share = side, share
        layers = {name: frozenset(rows.values()) for name, rows in self.pairs.items()}
        student_layers = frozenset(row for rows in self.pairs.values() for row in rows)
        self.needs = Capture(hidden={STUDENT: student_layers, **layers})
        self.projections = nn.ModuleDict()
        if side is not None:
            for name, rows in self.pairs.items():
                ends = teacher_widths[name], student_width
                begin, end = ends if side == "teacher" else ends[::-1]
                for key in dict.fromkeys(self._key(name, row) for row in rows):
                    self.projections[key] = _projection(begin, end)

    def _key(self, teacher: str, student_layer: int) -> str:
        return f"{teacher}-{student_layer}" if self.share == "per-layer" else teacher

    def count(self, batch: Batch) -> Tensor:
        return torch.stack([self._mask(batch, name).sum().float() for name in self.pairs])

    def _mask(self, batch: Batch, teacher: str) -> Tensor:
        """[B, L_S], True on real student tokens that have a counterpart."""
        return (batch.views[STUDENT]["attention_mask"] > 0) & batch.runs[teacher].matched()

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        totals = []
        for name, rows in self.pairs.items():
            mask = self._mask(batch, name)
            total = torch.zeros((), device=mask.device)
            for student_layer, teacher_layer in rows.items():
                student = outputs[STUDENT].hidden[student_layer].float()
                teacher = batch.runs[name].pull(outputs[name].hidden[teacher_layer].float())
                student, teacher = self._projected(name, student_layer, student, teacher)
                errors = (student - teacher).square().mean(-1)  # [B, L_S]
                total = total + errors.masked_fill(~mask, 0.0).sum()
                if self.observing:
                    spread = teacher.detach()[mask].std(0, correction=0).mean()
                    self.observed[f"projected-std/{name}-{student_layer}"] = spread
            totals.append(total)
        return torch.stack(totals)

    def _projected(self, name: str, student_layer: int, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if self.side is None:
            return student, teacher
        projection = self.projections[self._key(name, student_layer)]
        if self.side == "teacher":
            return student, projection(teacher)
        return projection(student), teacher


def _projection(begin: int, end: int) -> nn.Linear:
    """A map between widths that starts as the identity where it can, as an orthogonal map where it cannot."""
    linear = nn.Linear(begin, end, bias=False)
    if begin == end:
        nn.init.eye_(linear.weight)
    else:
        nn.init.orthogonal_(linear.weight)
    return linear
