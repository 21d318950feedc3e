"""What all losses share that compare hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.losses.layer_term import LayerTerm, Pairs, matched_tokens, pooled
from kdcli.losses.projection import Projections
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Reduction
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.hidden_cosine import HiddenCosine
from kdcli.recipe.losses.hidden_mse import HiddenMse
from kdcli.recipe.losses.projection import Projection, Side, Tokens
from kdcli.recipe.term_plan import TermPlan


class HiddenTerm(LayerTerm):
    """A comparison of matched hidden states, of all tokens or of one vector per sample.

    Where all tokens are compared, the mean runs over the real student tokens that have a counterpart in the teacher's text, and
    teacher states are brought to the student's tokens by the alignment P of the two tokenizers. The first tokens ([CLS]) and
    means over each model's own tokens need no alignment; there the mean runs over samples.

    Shapes: student [B, L_S, D_S], teacher [B, L_T, D_T].

    Args:
        pairs: teacher name → {student layer: teacher layer}, 0 is the embeddings.
        student_width, teacher_widths: D_S, and D_T by teacher name.
        projections: where the learnable maps are kept.
        side: whose states are projected, by teacher; None for no projection.
        share: one matrix per pair of layers, or one per teacher.
        tokens: all real tokens, the first one, or the mean over them.
        layer_reduction, teacher_reduction, weight, name: as in :class:`LayerTerm`.
    """

    kinds = ("hidden",)

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        student_width: int,
        teacher_widths: Mapping[str, int],
        projections: Projections | None = None,
        side: Mapping[str, Side | None] | Side | None = None,
        share: Literal["per-layer", "per-teacher"] = "per-layer",
        tokens: Tokens = "all",
        layer_reduction: Reduction = "sum",
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(pairs, layer_reduction, teacher_reduction, weight, name)
        self.tokens = tokens
        self.sides = {teacher: side.get(teacher) if isinstance(side, Mapping) else side for teacher in self.pairs}
        bank = Projections() if projections is None else projections
        self.projections: dict[tuple[str, int, int], nn.Linear] = {}  # a plain dict: they belong to the objective
        for teacher, rows in self.pairs.items():
            end = self.sides[teacher]
            for pair in rows.items() if end is not None else ():
                place = f"/{pair[0]}-{pair[1]}" if share == "per-layer" else ""
                begin, goal = student_width, teacher_widths[teacher]
                if end == "teacher":
                    begin, goal = goal, begin
                self.projections[teacher, *pair] = bank.between(f"{self.name}/{end}/{teacher}{place}", begin, goal)

    @classmethod
    def settings(cls, loss: HiddenMse | HiddenCosine, term: TermPlan, setting: Setting) -> dict[str, Any]:
        """The arguments that every such term takes from its plan."""
        return {
            "pairs": term.layers,
            "student_width": setting.student.width,
            "teacher_widths": {name: setting.teachers[name].width for name in term.teachers},
            "projections": setting.projections,
            "side": term.projected,
            "share": loss.projection.share if isinstance(loss.projection, Projection) else "per-layer",
            "tokens": loss.tokens,
            **cls.common(loss),
        }

    def units(self, batch: Batch, teacher: str) -> Tensor:
        if self.tokens == "all":
            return matched_tokens(batch, teacher).sum().float()
        return torch.full((), float(len(batch)), device=batch.rows.device)

    def compare(self, batch: Batch, outputs: Outputs, teacher: str, student_layer: int, teacher_layer: int) -> Tensor:
        ours, theirs = outputs[STUDENT].hidden[student_layer].float(), outputs[teacher].hidden[teacher_layer].float()
        mask = None
        if self.tokens == "all":
            theirs = batch.runs[teacher].pull(theirs)
            mask = matched_tokens(batch, teacher)
        else:
            ours = pooled(ours, batch.views[STUDENT]["attention_mask"], self.tokens)
            theirs = pooled(theirs, batch.views[teacher]["attention_mask"], self.tokens)
        projection = self.projections.get((teacher, student_layer, teacher_layer))
        if projection is not None and self.sides[teacher] == "student":
            ours = projection(ours)
        elif projection is not None:
            theirs = projection(theirs)
        if self.observing and projection is not None and self.sides[teacher] == "teacher":
            rows = theirs.detach() if mask is None else theirs.detach()[mask]
            self.observed[f"projected-std/{teacher}-{student_layer}"] = rows.std(0, correction=0).mean()
        return self.total(ours, theirs, mask)

    def total(self, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        """Sum of the distances between states [..., D] on both sides, of those alone that ``mask`` [...] holds."""
        distances = self.distance(ours, theirs)
        return distances.sum() if mask is None else distances.masked_fill(~mask, 0.0).sum()

    def distance(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Of states [..., D] on both sides → [...]."""
        raise NotImplementedError
