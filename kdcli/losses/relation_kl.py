"""``relation-kl``: relations between the tokens inside the attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.data.batching import Batch
from kdcli.losses.attention import row_divergence
from kdcli.losses.layer_term import LayerTerm, Pairs, matched_tokens
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Reduction
from kdcli.losses.term_classes import computes
from kdcli.models.output import Output
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.relation_kl import Relation, RelationKl
from kdcli.recipe.term_plan import TermPlan


@computes(RelationKl)
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

    @classmethod
    def planned(cls, loss: RelationKl, term: TermPlan, setting: Setting) -> Self:
        return cls(pairs=term.layers, relations=loss.relations, relation_heads=term.relation_heads, **cls.common(loss))

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
