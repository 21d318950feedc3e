"""``attention-mse``: attention scores."""

from __future__ import annotations

from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.attention import AttentionTerm
from kdcli.losses.layer_term import matched_tokens
from kdcli.losses.term import Outputs
from kdcli.losses.term_classes import computes
from kdcli.models.student import STUDENT
from kdcli.recipe.losses.attention_mse import AttentionMse


@computes(AttentionMse)
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
