"""AdamW over two kinds of parameters, and the learning rate over the steps."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from kdcli.engine.objective import Objective

Schedule = Literal["linear", "cosine", "constant"]


def make_optimizer(
    objective: Objective, learning_rate: float, head_learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW; parameters without pre-training have their own rate, biases and norms no decay."""
    fresh = set(objective.fresh_parameters())
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name in fresh, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": head_learning_rate if is_fresh else learning_rate,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (is_fresh, decays), parameters in sorted(groups.items())
        ],
        fused=True,
    )


def rate_factor(step: int, steps: int, warmup: float, schedule: Schedule) -> float:
    """The factor of the peak learning rate at ``step`` (from 0) of ``steps``.

    >>> [round(rate_factor(step, 10, 0.2, "linear"), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.88, 0.75, 0.62, 0.5, 0.38, 0.25, 0.12]
    """
    rising = max(1, math.ceil(warmup * steps)) if warmup > 0 else 0
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
