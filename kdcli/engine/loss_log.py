"""The losses of a stage: summed step by step, told as means over the steps since the last log entry."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdcli.engine import guards
from kdcli.engine.events import Logged, Note
from kdcli.engine.objective import log_group
from kdcli.engine.stage_state import StageRun
from kdcli.recipe.blocks import Schedule


def add(run: StageRun, values: Tensor) -> None:
    """Count a step's losses [parts], but not those of a step that the loss scaler is going to leave out (fp16)."""
    counted = torch.ones((), device=run.device)
    if run.accelerator.scaler is not None and run.norm is not None:
        counted = torch.isfinite(torch.as_tensor(run.norm, device=run.device)).to(counted.dtype)
        values = torch.where(counted > 0, values, 0.0)
    run.window += values
    run.sums += values * run.objective.weights
    run.steps_summed += counted


def write(run: StageRun) -> None:
    """Tell the mean of each loss, the learning rate, the terms' own figures, and where the time went.

    Raises:
        RunFailedError: a loss is not finite.
    """
    summed: Tensor = run.accelerator.reduce(run.sums, "sum")
    means = summed / run.steps_summed.clamp(min=1.0)
    guards.refuse_losses(run, means)
    values = {f"loss/{name}": value for name, value in run.objective.by_term(means).items()}
    values |= {"loss": means.sum().item(), "learning-rate": run.optimizer.param_groups[0]["lr"]}
    if run.norm is not None and math.isfinite(run.norm):
        values["gradient-norm"] = float(run.norm)
    for term in run.terms:
        if isinstance(term.weight, Schedule):
            values[f"{log_group(term)}/weight"] = term.at_moment(term.weight)
    figures, remarks = run.objective.observed()
    for remark in remarks:
        if remark not in run.remarked:
            run.remarked.add(remark)
            run.events.emit(Note(remark, warning=True))
    seconds = _seconds(run)
    run.events.emit(
        Logged(run.phase.name, run.stage.name, run.total_step, run.epoch, values | figures, seconds, run.samples_logged)
    )
    run.forget_sums()


def _seconds(run: StageRun) -> dict[str, float]:
    """Where the time went since the last log entry."""
    taken = run.profile.take()
    run.seconds.update(taken)
    run.samples += run.samples_logged
    return {name: round(seconds, 6) for name, seconds in taken.items()}
