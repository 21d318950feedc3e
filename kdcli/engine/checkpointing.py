"""A stage at work, into a checkpoint and out of it."""

from __future__ import annotations

import torch
from accelerate.utils import gather_object
from torch import Tensor

from kdcli.engine import checkpoint, guards
from kdcli.engine.checkpoint import State
from kdcli.engine.events import CheckpointWritten
from kdcli.engine.runtime import restore_rng_state, rng_state
from kdcli.engine.stage_state import StageRun


def save(run: StageRun) -> None:
    """Write all that the next step follows from, and the weights if they are the best ones.

    Raises:
        RunFailedError: weights or the optimiser's moments are not finite.
    """
    with run.profile.section("checkpoint"):
        _write(run)
    run.events.emit(CheckpointWritten(run.phase.name, run.total_step))


def _write(run: StageRun) -> None:
    states = gather_object([rng_state()])
    if run.stage.until is not None:
        window: Tensor = run.accelerator.reduce(run.window, "sum")
        run.position.window = window.tolist()
    guards.refuse_to_save(run)
    if run.accelerator.is_main_process:
        scaler = run.accelerator.scaler
        checkpoint.save(
            run.folder,
            State(
                position=run.position,
                objective=run.objective.state_dict(),
                optimizer=run.optimizer.state_dict(),
                scaler=scaler.state_dict() if scaler is not None else None,
                random=states,
            ),
            best=run.phase.learner.state_dict() if run.is_best else None,
        )
    run.is_best = False
    run.accelerator.wait_for_everyone()


def restore(run: StageRun, state: State) -> None:
    """Put everything where the checkpoint had it.

    Raises:
        RunFailedError: its weights or the optimiser's moments are not finite, so that nothing can follow from them.
    """
    guards.refuse_checkpoint(run, state)
    run.objective.load_state_dict(state.objective)
    run.optimizer.load_state_dict(state.optimizer)
    if state.scaler is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state.scaler)
    restore_rng_state(state.random[run.accelerator.process_index % len(state.random)])
    if run.position.window and run.accelerator.is_main_process:
        run.window += torch.tensor(run.position.window, device=run.device)
