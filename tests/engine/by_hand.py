"""A training loop as one would write it by hand for one stage, to hold the engine's against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from kdcli.data.batching import epoch_batches
from kdcli.engine.objective import ParameterKind
from kdcli.engine.stages import Phase
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from tests.engine.phases import BATCH_SIZE, DEPTHS, RATES

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
CLIP, DECAY, WARMUP_STEPS = 0.5, 0.1, 2
EVERYTHING = {name: Wanted.of("hidden", range(depth + 1)) for name, depth in (DEPTHS | {STUDENT: 2}).items()}


def linear(step: int, steps: int) -> float:
    """The factor of the rate: up in two steps, then down to nothing."""
    return (step + 1) / WARMUP_STEPS if step < WARMUP_STEPS else 1 - (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)


def plainly_trained(
    trained: Phase,
    clip: float = CLIP,
    make: Make = torch.optim.AdamW,
    rates: Mapping[ParameterKind, float] = RATES,
    factor: Callable[[int, int], float] = linear,
    weigh: Mapping[str, Callable[[int], float]] | None = None,
) -> tuple[list[float], list[float]]:
    """Train the phase's only stage; returns losses and gradient norms.

    Args:
        trained: the phase; ``hidden`` is all that its terms look at inside the models.
        clip: largest gradient norm.
        make: the optimiser.
        rates: peak rates.
        factor: of the rate, by step and number of steps.
        weigh: term → its weight by step, in place of the term's own.
    """
    stage, train = trained.stages[0], trained.train
    learner = trained.learner.train()
    parameters: dict[str, nn.Parameter] = dict(learner.named_parameters())
    parameters |= {f"projection {name}": parameter for name, parameter in trained.projections.named_parameters()}
    kinds: dict[str, ParameterKind] = {
        name: "projection" if name.startswith("projection") else "head" if "classifier" in name else "body"
        for name in parameters
    }
    optimizer = make(
        [
            {"params": [parameter], "lr": rates[kinds[name]], "weight_decay": DECAY if parameter.ndim > 1 else 0.0}
            for name, parameter in parameters.items()
        ]
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    batches = epoch_batches(train.lengths, BATCH_SIZE, trained.seed, 0)
    losses, norms = [], []
    for step in range(stage.plan.steps):
        batch = train.batch(batches[step])
        assert trained.ensemble is not None
        outputs = {**trained.ensemble(batch, EVERYTHING), **learner(batch, EVERYTHING)}
        values = []
        for term in stage.terms:
            weight = weigh[term.name](step) if weigh and term.name in weigh else term.weight
            assert isinstance(weight, float)
            values.append(weight * (term(batch, outputs) / term.count(batch)).sum())
        loss = torch.stack(values).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), clip)))
        losses.append(loss.item())
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor(step, stage.plan.steps)
        optimizer.step()
    return losses, norms
