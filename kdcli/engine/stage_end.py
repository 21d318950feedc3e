"""A stage's rule for moving on before its epochs are over."""

from __future__ import annotations

from torch import Tensor

from kdcli.engine.stage_state import StageRun


def moves_on(run: StageRun) -> str | None:
    """What is to be said if the stage's rule is met; looked at once per window, alike on all processes."""
    until = run.stage.until
    if until is None:
        return None
    run.position.window_steps += 1
    if run.position.window_steps < run.look_every:
        return None
    means: Tensor = run.accelerator.reduce(run.window, "sum") / run.position.window_steps
    value = run.objective.by_term(means)[until.loss] / run.objective.scales()[until.loss]
    run.window.zero_()
    run.position.window_steps = 0
    if not value < until.below:  # not finite is not below either
        return None
    return f"{run.stage.name}: {until.loss} is {value:.4g}, below {until.below:g}: moving on"
