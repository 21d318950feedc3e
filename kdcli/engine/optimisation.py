"""The optimiser over parts with rates of their own, and the learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from kdcli.engine.objective import Objective, ParameterKind
from kdcli.recipe.schema import Training

RateSchedule = Literal["linear", "cosine", "constant"]


def make_optimizer(
    objective: Objective,
    learning_rates: Mapping[ParameterKind, float],
    settings: Training,
    model_rates: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """The recipe's optimiser over what moves; biases and norms have no decay.

    Body, head and projections each have their own peak rate. With a layer decay d, a parameter of layer j of K takes the rate
    times d^(K − j), the embeddings standing at j = 0; head and projections take theirs whole. Of several models that learn
    together, those in ``model_rates`` have a peak rate of their own for their bodies.
    """
    kinds, depths, owners = objective.kinds(), objective.depths(), objective.owners()
    own = model_rates or {}
    top = max((depth for depth in depths.values() if isinstance(depth, int)), default=0)
    groups: dict[tuple[ParameterKind, str, int, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        depth = depths.get(name, top)
        below = top - depth if isinstance(depth, int) and settings.layer_decay < 1 else 0
        if parameter.requires_grad:
            owner = owners.get(name, "") if kinds[name] == "body" else ""
            place = kinds[name], owner if owner in own else "", below, parameter.ndim > 1
            groups.setdefault(place, []).append(parameter)
    return _optimizer(
        [
            {
                "params": parameters,
                "lr": own.get(owner, learning_rates[kind]) * settings.layer_decay**below,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (kind, owner, below, decays), parameters in sorted(groups.items(), key=lambda entry: entry[0])
        ],
        settings,
    )


def _optimizer(groups: list[dict[str, Any]], settings: Training) -> torch.optim.Optimizer:
    about = settings.optimizer
    if about.name == "adafactor":
        return torch.optim.Adafactor(groups)
    if about.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=about.beta1)
    return torch.optim.AdamW(groups, betas=(about.beta1, about.beta2), eps=about.epsilon, fused=True)


def rate_factor(step: int, steps: int, warmup: float, schedule: RateSchedule) -> float:
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
