"""AdamW over three kinds of parameters, and the learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from kdcli.engine.objective import Objective, ParameterKind

Schedule = Literal["linear", "cosine", "constant"]


def make_optimizer(
    objective: Objective, learning_rates: Mapping[ParameterKind, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW; body, head and projections each have their own peak rate, biases and norms no decay."""
    kinds = objective.kinds()
    groups: dict[tuple[ParameterKind, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((kinds[name], parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": learning_rates[kind], "weight_decay": weight_decay if decays else 0.0}
            for (kind, decays), parameters in sorted(groups.items())
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
