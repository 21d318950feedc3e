"""``attention-kl``: attention probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.attention import LOWEST_LOG, AttentionTerm, row_divergence
from kdcli.losses.layer_term import matched_tokens
from kdcli.losses.term import Outputs
from kdcli.losses.term_classes import computes
from kdcli.models.student import STUDENT
from kdcli.recipe.losses.attention_kl import AttentionKl


@computes(AttentionKl)
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
