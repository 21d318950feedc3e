"""What losses share that compare attention maps, or distributions over the tokens that a query attends to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.layer_term import LayerTerm, Pairs, matched_tokens
from kdcli.losses.setting import Setting
from kdcli.losses.term import Reduction
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.attention_kl import AttentionKl
from kdcli.recipe.losses.attention_mse import AttentionMse
from kdcli.recipe.term_plan import TermPlan

HeadMap = Literal["match", "mean"] | Mapping[int, int]
LOWEST_LOG = math.log(1e-9)


class AttentionTerm(LayerTerm):
    """A comparison of attention maps; unlike numbers of heads are averaged or mapped.

    Args:
        pairs: teacher name → {student layer: teacher layer}, from 1.
        heads: by teacher: ``match`` (head with head), ``mean`` (over the heads of each side), or student head → teacher head,
            from 1.
        layer_reduction, teacher_reduction, weight, name: as in :class:`LayerTerm`.
    """

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        heads: Mapping[str, HeadMap] | None = None,
        layer_reduction: Reduction = "sum",
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(pairs, layer_reduction, teacher_reduction, weight, name)
        self.heads = {teacher: (heads or {}).get(teacher, "match") for teacher in self.pairs}

    @classmethod
    def planned(cls, loss: AttentionKl | AttentionMse, term: TermPlan, setting: Setting) -> Self:
        return cls(pairs=term.layers, heads=term.heads, **cls.common(loss))

    def chosen(self, teacher: str, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The heads [B, A, L, L] of each side that are compared; averages are still to be taken."""
        heads = self.heads[teacher]
        if isinstance(heads, str):
            return ours, theirs
        return (
            torch.stack([ours[:, head - 1] for head in heads], dim=1),
            torch.stack([theirs[:, head - 1] for head in heads.values()], dim=1),
        )


def over_matched_tokens(batch: Batch, teacher: str, logs: Tensor) -> Tensor:
    """The student's log-probabilities [B, A, L_S, L_S] over those of its tokens that have a counterpart in the teacher's."""
    if batch.runs[teacher].identity:
        return logs
    mask = matched_tokens(batch, teacher)
    return logs.masked_fill(~mask[:, None, None, :], torch.finfo(logs.dtype).min).log_softmax(-1)


def row_divergence(batch: Batch, teacher: str, ours: Tensor, wanted: Tensor, lowest: float | None = None) -> Tensor:
    """Total over matched query tokens of the mean over heads of KL(wanted ‖ ours).

    Shapes: ours [B, A, L_S, L_S] in logarithms, counted as ``lowest`` where they are below it; wanted [B, A, L_T, L_T] in the
    teacher's tokens, as probabilities.
    """
    mask = matched_tokens(batch, teacher)
    if not batch.runs[teacher].identity:
        wanted = batch.runs[teacher].pull_attention(wanted)
    ours = over_matched_tokens(batch, teacher, ours)
    if lowest is not None:
        ours = ours.clamp(min=lowest)
    rows: Tensor = (torch.special.xlogy(wanted, wanted) - wanted * ours).sum(-1).mean(1)  # [B, L_S]
    return rows.masked_fill(~mask, 0.0).sum()
