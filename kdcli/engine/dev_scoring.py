"""The dev split: scored while a stage is trained, it decides which weights are kept and when to stop early."""

from __future__ import annotations

import math

import numpy as np
from accelerate.utils import gather_object

from kdcli.engine import guards
from kdcli.engine.events import Evaluated
from kdcli.engine.inference import EVALUATION_BATCH, predict
from kdcli.engine.runtime import give_back_memory
from kdcli.engine.stage_state import StageRun
from kdcli.models.student import STUDENT, STUDENT_NAME
from kdcli.recipe.schema import settled


def evaluate(run: StageRun) -> None:
    """Score the models that learn, and note in the last stage whether they are to be kept.

    Raises:
        RunFailedError: the outputs are not finite.
    """
    run.model.eval()
    logits = predict(
        run.phase.learner,
        run.phase.dev,
        EVALUATION_BATCH,
        run.device,
        rank=run.accelerator.process_index,
        processes=run.accelerator.num_processes,
        gather=gather_object,
    )
    run.model.train()
    give_back_memory()
    guards.refuse_outputs(run, {_called(name): values for name, values in logits.items()})
    scores = {_called(name): values for name, values in run.phase.score(logits).items()}
    score = float(np.mean([values[run.phase.metric] for values in scores.values()]))
    run.is_best = run.is_last and _is_to_be_kept(run, score)
    if run.is_best:
        run.position.best_score, run.position.best_step = score, run.total_step
    run.events.emit(Evaluated(run.phase.name, run.stage.name, run.total_step, run.epoch, scores, run.phase.metric, run.is_best))


def _is_to_be_kept(run: StageRun, score: float) -> bool:
    """Whether the weights of an evaluation take the place of those that are kept."""
    position = run.position
    rises = position.top_score is None or score > position.top_score
    position.stale = 0 if rises else position.stale + 1
    if rises:
        position.top_score = score
    assert position.top_score is not None
    if rises or run.settings.keep == "best":
        return rises
    share = min(1.0, max(0.0, position.top_score))
    return score >= position.top_score - math.sqrt(share * (1 - share) / len(run.phase.dev))


def stops_early(run: StageRun) -> bool:
    """Whether dev has not become better for as many evaluations as early stopping waits for."""
    patience = run.settings.early_stopping
    if patience is None or not run.is_last or run.position.stale < settled(patience):
        return False
    if run.position.step < run.stage.steps:
        run.say(f"{run.stage.name}: no better dev score for {patience} evaluations: stopping early")
    return True


def _called(model: str) -> str:
    """What a model is called in messages and logs."""
    return STUDENT_NAME if model == STUDENT else model
