"""How much each teacher counts on each sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.errors import Problem, RequestError


def inverse_error(logits: Tensor, labels: Tensor | None) -> Tensor:
    """1 / (1 + CE(y, z)) per sample: a teacher that is wrong on a sample weighs less there (MT-BERT, eq. 5).

    Shapes: logits [B, C], labels [B] → [B], in (0, 1]. Weights are not normalised over teachers.

    Raises:
        RequestError: the samples have no labels.
    """
    if labels is None:
        raise RequestError(
            Problem("weighting: inverse-error", "needs gold labels", remedy="weighting: uniform for unlabelled text")
        )
    return 1.0 / (1.0 + functional.cross_entropy(logits.float(), labels, reduction="none"))


def uniform(logits: Tensor, labels: Tensor | None) -> Tensor:
    """1 for every sample. Shapes: logits [B, C] → [B]."""
    return torch.ones(len(logits), device=logits.device)


WEIGHTINGS = {"inverse-error": inverse_error, "uniform": uniform}
