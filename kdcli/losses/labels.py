"""Losses on the class distribution: gold labels and teachers' soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.data.batching import Batch
from kdcli.losses.term import Outputs, Term
from kdcli.losses.weighting import WEIGHTINGS
from kdcli.models.student import STUDENT


class HardLabelsTerm(Term):
    """Cross-entropy against the gold label in nats, mean over samples, summed over the models that learn.

    One model when a student learns; all teachers when they are co-finetuned (MT-BERT, stage 1).

    Shapes: logits [B, C], labels [B].
    """

    name = "hard-labels"

    def __init__(self, models: Sequence[str] = (STUDENT,), weight: float = 1.0) -> None:
        super().__init__(weight)
        self.models = tuple(models)
        self.parts = len(self.models)

    def count(self, batch: Batch) -> Tensor:
        return torch.full((self.parts,), float(len(batch)))

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        assert batch.labels is not None
        losses = [functional.cross_entropy(outputs[name].logits.float(), batch.labels, reduction="sum") for name in self.models]
        return torch.stack(losses)


class SoftLabelsTerm(Term):
    """Cross-entropy against each teacher's softened distribution, in nats, mean over samples, summed over teachers.

    Σ_i w_i · CE(softmax(z_i/t), z_S/t), with w_i = 1/(1 + CE(y, z_i)) under inverse-error weighting; t² only where asked for
    (MT-BERT, eq. 5; Hinton et al. 2015 multiply by t²).

    Shapes: logits [B, C] on both sides.
    """

    name = "soft-labels"

    def __init__(
        self,
        teachers: Sequence[str],
        temperature: float = 1.0,
        temperature_squared: bool = False,
        weighting: Literal["inverse-error", "uniform"] = "inverse-error",
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.teachers = tuple(teachers)
        self.parts = len(self.teachers)
        self.temperature = temperature
        self.factor = temperature**2 if temperature_squared else 1.0
        self.weighting = WEIGHTINGS[weighting]

    def count(self, batch: Batch) -> Tensor:
        return torch.full((self.parts,), float(len(batch)))

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        student = functional.log_softmax(outputs[STUDENT].logits.float() / self.temperature, dim=-1)  # [B, C]
        totals = []
        for name in self.teachers:
            logits = outputs[name].logits.float()
            teacher = functional.softmax(logits / self.temperature, dim=-1)
            weights = self.weighting(logits, batch.labels)  # [B]
            totals.append(-(weights * (teacher * student).sum(-1)).sum() * self.factor)
            if self.observing:
                self.observed[f"weight-mean/{name}"] = weights.mean()
                self.observed[f"weight-spread/{name}"] = weights.std(correction=0)
        return torch.stack(totals)
