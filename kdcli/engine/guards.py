"""Nothing goes on from numbers that are not finite: gradients, losses, outputs, what a checkpoint would hold or holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.engine.checkpoint import State
from kdcli.engine.stage_state import StageRun
from kdcli.errors import RunFailedError
from kdcli.models.finite_checks import listed, tensors_not_finite
from kdcli.tasks.kind import rows_not_finite

_MOST_LEFT_OUT = 25  # halved as often, the scale of fp16 falls from 65536 below 0.002


def refuse_gradient(run: StageRun, micro_batches: Sequence[Batch], counts: Tensor) -> None:
    """Stop at a gradient that is not finite, naming the term.

    On a GPU only when logging, because looking costs a wait; nothing is saved in between without :func:`refuse_to_save`.
    With a loss scaler (fp16) such a step is left out and the scale halved, so that only a row of them is a failure.

    Args:
        run: the stage, with the norm of the gradient of the step that is being taken.
        micro_batches: of that step.
        counts: that the terms' totals [parts] were divided by.

    Raises:
        RunFailedError: with the terms that it comes from.
    """
    if run.norm is None:
        return
    broken = ~torch.isfinite(torch.as_tensor(run.norm, device=run.device))
    scaled = run.accelerator.scaler is not None
    run.not_finite = torch.where(broken, run.not_finite + 1, 0 if scaled else run.not_finite)
    if run.device.type == "cuda" and not run.logs_now:
        return
    if int(run.not_finite) >= (_MOST_LEFT_OUT if scaled else 1):
        culprits = _terms_without_finite_gradient(run, micro_batches, counts)
        how = f"the gradient has not been finite for {int(run.not_finite)} steps, whatever the loss scale"
        raise RunFailedError(
            f"{run.phase.name}, step {run.total_step + 1}: {how if scaled else 'the gradient is not finite'}; "
            f"it comes from {', '.join(culprits) or 'the weights themselves'}. Lower --learning-rate, or use "
            "--precision fp32; --resume goes on from the last checkpoint"
        )


def _terms_without_finite_gradient(run: StageRun, micro_batches: Sequence[Batch], counts: Tensor) -> list[str]:
    culprits = set()
    for batch in micro_batches:
        outputs = {**run.taught(batch), **run.phase.learner(batch, run.objective.needs)}
        shares = torch.split(counts, [term.parts for term in run.terms])
        for term, share in zip(run.terms, shares, strict=True):
            value = (term(batch, outputs) / share).sum() * term.at_moment(term.weight)
            if not value.requires_grad:
                continue
            gradients = torch.autograd.grad(value, run.parameters, retain_graph=True, allow_unused=True)
            if not all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None):
                culprits.add(term.name)
    return sorted(culprits)


def refuse_losses(run: StageRun, means: Tensor) -> None:
    """Stop where a loss is not finite, though no gradient may come from it.

    Raises:
        RunFailedError: with the terms whose values [parts] are not.
    """
    if not bool(means.isfinite().all()):
        broken = [name for name, value in run.objective.by_term(means).items() if not math.isfinite(value)]
        raise RunFailedError(
            f"{run.phase.name}, step {run.total_step}: the value of {', '.join(broken)} is not finite. Lower --learning-rate, "
            "or use --precision fp32; --resume goes on from the last checkpoint"
        )


def refuse_outputs(run: StageRun, logits: Mapping[str, NDArray[np.float32]]) -> None:
    """Stop where a model's outputs on dev are not finite, so that it has no score.

    Args:
        run: the stage.
        logits: [n, C] by what each model is called in messages.

    Raises:
        RunFailedError: with the model.
    """
    for name, values in logits.items():
        broken = rows_not_finite(values)
        if len(broken):
            raise RunFailedError(
                f"{run.phase.name}, step {run.total_step}: the outputs of {name} are not finite for {len(broken)} of "
                f"{len(values)} dev samples, so that they have no score. Lower --learning-rate, or use --precision fp32; "
                "--resume goes on from the last checkpoint"
            )


def refuse_to_save(run: StageRun) -> None:
    """Stop before a checkpoint is written from which nothing can go on; looks at every device's state alike.

    Raises:
        RunFailedError: weights, projections or the optimiser's moments are not finite.
    """
    broken = _not_finite(run.objective.named_parameters(), run.optimizer.state_dict(), run.position.window)
    if broken:
        raise RunFailedError(
            f"{run.phase.name}, step {run.total_step}: weights or the optimiser's moments are not finite ({listed(broken)}), "
            "and no checkpoint is written of them. Lower --learning-rate, or use --precision fp32; --resume goes on from "
            "the last checkpoint"
        )


def refuse_checkpoint(run: StageRun, state: State) -> None:
    """Refuse a checkpoint from which nothing can go on.

    Raises:
        RunFailedError: its weights or the optimiser's moments are not finite.
    """
    broken = _not_finite(state.objective.items(), state.optimizer, state.position.window)
    if broken:
        raise RunFailedError(
            f"{run.folder}: the checkpoint holds values that are not finite ({listed(broken)}); remove the folder to start "
            "the phase again"
        )


def _not_finite(weights: Iterable[tuple[str, Tensor]], optimizer: Mapping[str, Any], window: Sequence[float]) -> list[str]:
    """What of a state is not finite: names of weights, of the optimiser's moments, of the losses' window."""
    moments = (
        (f"{key} of parameter {row}", value)
        for row, values in optimizer["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    )
    found = tensors_not_finite(weights) + tensors_not_finite(moments)
    return found if np.isfinite(window).all() else [*found, "the losses of the stage's rule for moving on"]
