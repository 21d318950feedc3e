"""Losses on what is inside the attention: its probabilities, its scores, and relations between projected states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.data.batching import Batch
from kdcli.losses.layers import LayerTerm, Pairs, matched_tokens
from kdcli.losses.term import Outputs, Reduction
from kdcli.models.output import Output
from kdcli.models.student import STUDENT
from kdcli.recipe.schema import Relation, Schedule

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

    def chosen(self, teacher: str, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """The heads [B, A, L, L] of each side that are compared; averages are still to be taken."""
        heads = self.heads[teacher]
        if isinstance(heads, str):
            return ours, theirs
        return (
            torch.stack([ours[:, head - 1] for head in heads], dim=1),
            torch.stack([theirs[:, head - 1] for head in heads.values()], dim=1),
        )


class AttentionKlTerm(AttentionTerm):
    """KL divergence of the student's attention from the teacher's, in nats per query token.

    L_kl = 1/L Σ_rows Σ_columns A^T log(A^T / A^S) (Aguilar et al. 2020, eq. 2): KL(teacher ‖ student) of each query row, mean
    over real query tokens and over heads. With another tokenizer A^T becomes P·A^T·Q, and both sides are distributions over
    the student tokens that have a counterpart. Student probabilities below 1e-9 (outside a sliding window, say) count as that.

    Shapes: log-probabilities [B, A, L, L] on each side.
    """

    name = "attention-kl"
    kinds = ("attention",)

    def units(self, batch: Batch, teacher: str) -> Tensor:
        return matched_tokens(batch, teacher).sum().float()

    def compare(self, batch: Batch, outputs: Outputs, teacher: str, student_layer: int, teacher_layer: int) -> Tensor:
        ours, theirs = self.chosen(
            teacher, outputs[STUDENT].attention[student_layer].float(), outputs[teacher].attention[teacher_layer].float()
        )
        wanted = theirs.exp()
        if self.heads[teacher] == "mean":
            ours = torch.logsumexp(ours, 1, keepdim=True) - math.log(ours.shape[1])
            wanted = wanted.mean(1, keepdim=True)
        return row_divergence(batch, teacher, ours, wanted, lowest=LOWEST_LOG)


def row_divergence(batch: Batch, teacher: str, ours: Tensor, wanted: Tensor, lowest: float | None = None) -> Tensor:
    """Total over matched query tokens of the mean over heads of KL(wanted ‖ ours).

    Shapes: ours [B, A, L_S, L_S] in logarithms, counted as ``lowest`` where they are below it; wanted [B, A, L_T, L_T] in the
    teacher's tokens, as probabilities.
    """
    runs, mask = batch.runs[teacher], matched_tokens(batch, teacher)
    if not runs.identity:
        wanted = runs.pull_attention(wanted)
        ours = ours.masked_fill(~mask[:, None, None, :], torch.finfo(ours.dtype).min).log_softmax(-1)
    if lowest is not None:
        ours = ours.clamp(min=lowest)
    rows: Tensor = (torch.special.xlogy(wanted, wanted) - wanted * ours).sum(-1).mean(1)  # [B, L_S]
    return rows.masked_fill(~mask, 0.0).sum()


class AttentionMseTerm(AttentionTerm):
    """Mean squared error between attention scores before the softmax, mean over heads and over cells between real tokens.

    TinyBERT's attention loss (Jiao et al. 2020, eq. 7); masked cells are left out. With another tokenizer the teacher's scores
    are averaged over the pairs of tokens that a pair of student tokens overlaps.

    Shapes: scores [B, A, L, L] on each side.
    """

    name = "attention-mse"
    kinds = ("scores",)

    def units(self, batch: Batch, teacher: str) -> Tensor:
        return matched_tokens(batch, teacher).sum(-1).float().square().sum()

    def compare(self, batch: Batch, outputs: Outputs, teacher: str, student_layer: int, teacher_layer: int) -> Tensor:
        ours, theirs = self.chosen(
            teacher, outputs[STUDENT].scores[student_layer].float(), outputs[teacher].scores[teacher_layer].float()
        )
        if self.heads[teacher] == "mean":
            ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
        mask = matched_tokens(batch, teacher)
        cells = (mask[:, :, None] & mask[:, None, :])[:, None]
        errors = (ours - batch.runs[teacher].pull_scores(theirs)).square().masked_fill(~cells, 0.0)
        return errors.mean(1).sum()


class RelationKlTerm(LayerTerm):
    """KL divergence between relations of tokens, softmax(XXᵀ/√d) for X among queries, keys and values; sum over the relations.

    Value relations are MiniLM's (Wang et al. 2020, eq. 6); queries, keys and values cut into R relation heads are MiniLMv2's
    (Wang et al. 2021, eq. 5), which lets head counts and widths differ. In nats per token: mean over real tokens and heads.

    Shapes: per side [B, A, L, D/A], made [B, R, L, D/R].

    Args:
        pairs: teacher name → {student layer: teacher layer}, from 1.
        relations: which of queries, keys, values.
        relation_heads: R, for all teachers or by name; None for the attention's own heads, whose numbers must match.
        layer_reduction, teacher_reduction, weight, name: as in :class:`LayerTerm`.
    """

    name = "relation-kl"

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        relations: Sequence[Relation] = ("queries", "keys", "values"),
        relation_heads: int | Mapping[str, int | None] | None = None,
        layer_reduction: Reduction = "sum",
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(pairs, layer_reduction, teacher_reduction, weight, name)
        self.kinds = tuple(relations)
        self.relation_heads = {
            teacher: relation_heads.get(teacher) if isinstance(relation_heads, Mapping) else relation_heads
            for teacher in self.pairs
        }
        self.scale *= len(self.kinds)

    def units(self, batch: Batch, teacher: str) -> Tensor:
        return matched_tokens(batch, teacher).sum().float()

    def compare(self, batch: Batch, outputs: Outputs, teacher: str, student_layer: int, teacher_layer: int) -> Tensor:
        total = torch.zeros((), device=batch.rows.device)
        for relation in self.kinds:
            heads = self.relation_heads[teacher]
            ours = _relation(outputs[STUDENT], relation, student_layer, batch.views[STUDENT], heads)
            theirs = _relation(outputs[teacher], relation, teacher_layer, batch.views[teacher], heads)
            total = total + row_divergence(batch, teacher, ours, theirs.exp())
        return total


def _relation(output: Output, relation: str, layer: int, view: Mapping[str, Tensor], heads: int | None) -> Tensor:
    """Logarithm of the relation [B, R, L, L]."""
    states: Tensor = getattr(output, relation)[layer].float()
    if heads is not None:
        samples, tokens = states.shape[0], states.shape[2]
        states = states.transpose(1, 2).reshape(samples, tokens, heads, -1).transpose(1, 2)
    scores = torch.matmul(states * states.shape[-1] ** -0.5, states.transpose(-1, -2))
    real = view["attention_mask"][:, None, None, :] > 0
    return functional.log_softmax(scores.masked_fill(~real, torch.finfo(scores.dtype).min), dim=-1)
