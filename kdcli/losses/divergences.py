"""Distances between class distributions, computed from logits in log space."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Divergence = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """−Σ p_T log p_S, in nats. Shapes: log-probabilities [B, C] → [B]."""
    return -(teacher.exp() * student).sum(-1)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) = Σ p_T (log p_T − log p_S), in nats. Shapes: log-probabilities [B, C] → [B]."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student ‖ teacher), in nats. Shapes: log-probabilities [B, C] → [B]."""
    return kl(teacher, student)


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """½ KL(p_T ‖ m) + ½ KL(p_S ‖ m) with m = ½(p_T + p_S); in nats, at most log 2. Shapes: log-probabilities [B, C] → [B]."""
    middle = torch.logaddexp(student, teacher) - math.log(2)
    return 0.5 * (kl(middle, teacher) + kl(middle, student))


def total_variation(student: Tensor, teacher: Tensor) -> Tensor:
    """½ Σ |p_T − p_S|, from 0 to 1. Shapes: log-probabilities [B, C] → [B]."""
    return 0.5 * (student.exp() - teacher.exp()).abs().sum(-1)


DIVERGENCES: dict[str, Divergence] = {
    "cross-entropy": cross_entropy,
    "kl": kl,
    "reverse-kl": reverse_kl,
    "js": jensen_shannon,
    "tv": total_variation,
}
