"""THE training loop: every model of kdcli is trained here.

A step is one global batch. It is cut into micro-batches over accumulation and processes; the counts that the terms divide by
are those of the whole batch, so that the cut changes nothing but memory and time.

Read from top to bottom: a trainer runs a phase (:meth:`Trainer.run`), stage by stage; a stage is trained (:func:`train`) step
by step (:func:`step`), and after each step it is logged, scored, saved, and left where it is time to (:func:`after_step`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from kdcli.engine import checkpoint, guards, loss_log
from kdcli.engine.checkpoint import Position
from kdcli.engine.checkpointing import restore, save
from kdcli.engine.dev_scoring import evaluate, stops_early
from kdcli.engine.events import Events, Note, PhaseDone, PhaseStarted, StepDone
from kdcli.engine.interruption import StopRequest, stop_on_signal
from kdcli.engine.prefetch import Delivery, deliveries
from kdcli.engine.profile import Profile
from kdcli.engine.runtime import give_back_memory
from kdcli.engine.stage_end import moves_on
from kdcli.engine.stage_state import StageRun
from kdcli.engine.stages import Phase
from kdcli.errors import InterruptedRunError
from kdcli.recipe.schema import Training


@dataclass
class Trainer:
    """Runs phases.

    Attributes:
        accelerator: device, precision and processes.
        settings: the recipe's training block.
        events: who is told.
        checkpoints: folder with one checkpoint per phase.
        stop: asked by a signal.
        profile: where the time goes.
    """

    accelerator: Accelerator
    settings: Training
    events: Events
    checkpoints: Path
    stop: StopRequest = field(default_factory=StopRequest)
    profile: Profile = field(default_factory=Profile)

    def run(self, phase: Phase) -> float:
        """Train a phase from its checkpoint, or from the start; leaves the best weights in the learner.

        SIGINT, SIGTERM and SIGHUP are taken as a wish to stop after the step at hand; a second one ends the process as usual.

        Returns:
            The best dev score (mean over the models that learn).

        Raises:
            InterruptedRunError: a signal asked to stop; the state is saved.
            RunFailedError: the gradient became infinite or not a number.
        """
        with stop_on_signal(self._say_stopping) as self.stop:
            score = self._run(phase)
        if self.stop.asked and self.accelerator.num_processes == 1:  # after the last step; several agree at their next step
            raise InterruptedRunError(f"stopped after the last step ({phase.title}); the state is saved, --resume goes on")
        return score

    def _run(self, phase: Phase) -> float:
        folder = self.checkpoints / phase.name
        state = checkpoint.load(folder)
        position = state.position if state else Position()
        seconds: Counter[str] = Counter()
        samples = 0
        before = sum(stage.plan.steps for stage in phase.stages[: position.stage])
        self.events.emit(PhaseStarted(phase.name, phase.title, before + position.step, phase.steps))
        for row in range(position.stage, len(phase.stages)):
            if row > position.stage:
                position.begin_stage(row)
            run = StageRun(
                accelerator=self.accelerator,
                settings=self.settings,
                events=self.events,
                profile=self.profile,
                folder=folder,
                phase=phase,
                row=row,
                position=position,
            )
            if state is not None:
                restore(run, state)
                state = None
            train(run, self._stop_asked)
            seconds.update(run.seconds)
            samples += run.samples
        best = checkpoint.best_weights(folder)
        if best is not None:
            phase.learner.load_state_dict(best)
        score = position.best_score if position.best_score is not None else float("nan")
        seconds.update(self.profile.take())
        self.events.emit(PhaseDone(phase.name, score, dict(seconds), samples))
        return score

    def _stop_asked(self) -> bool:
        """Whether any process was asked to stop."""
        if self.accelerator.num_processes == 1:
            return self.stop.asked
        asked = torch.tensor([float(self.stop.asked)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum").item())

    def _say_stopping(self) -> None:
        self.events.emit(Note("stopping after this step; once more stops at once", warning=True))


def train(run: StageRun, stop_asked: Callable[[], bool] = lambda: False) -> None:
    """Train a stage: all steps that are left of it."""
    run.model.train()
    give_back_memory()
    coming = deliveries(run.batches_left(), run.phase.train, run.phase.ensemble, run.cut(), run.device)
    with run.profile.section("other"), closing(coming):
        while not run.is_over:
            with run.profile.section("data"):
                delivery = next(coming)
            step(run, delivery)
            run.position.step += 1
            after_step(run, delivery.samples, stop_asked)
    run.accelerator.free_memory(run.model, run.optimizer)


def step(run: StageRun, delivery: Delivery) -> None:
    """Take one optimiser step over one global batch."""
    accelerator, objective, batches = run.accelerator, run.objective, delivery.micro_batches
    objective.begin(run.moment())
    counts = torch.zeros_like(run.sums)  # [parts]
    for batch in batches:
        counts += objective.counts(batch) * delivery.counts
    whole: Tensor = accelerator.reduce(counts, "sum")
    whole = whole.clamp(min=1.0)
    run.set_rates()
    objective.observe(run.logs_now)
    found = torch.zeros_like(run.sums)
    for place, batch in enumerate(batches):
        waits = accelerator.num_processes > 1 and place < len(batches) - 1
        taught = run.taught(batch)
        with accelerator.no_sync(run.model) if waits else nullcontext():
            with run.profile.section("student"):
                values = run.model(batch, taught) / whole * delivery.counts
            with run.profile.section("backward"):
                accelerator.backward((values * objective.weights).sum() * accelerator.num_processes)
        found += values.detach()
    with run.profile.section("optimiser"):
        run.norm = accelerator.clip_grad_norm_(run.parameters, run.settings.clip_norm)
        loss_log.add(run, found)
        guards.refuse_gradient(run, batches, whole)
        run.optimizer.step()
        run.optimizer.zero_grad()


def after_step(run: StageRun, samples: int, stop_asked: Callable[[], bool]) -> None:
    """Log, score, save, and go on, move on or stop, as it is time to.

    Args:
        run: the stage, one step further.
        samples: of that step.
        stop_asked: whether somebody wants to stop.

    Raises:
        InterruptedRunError: somebody does; the state is saved.
    """
    run.samples_logged += samples
    run.events.emit(StepDone(run.phase.name, run.stage.name, run.total_step, run.phase.steps, samples))
    why = moves_on(run)
    run.position.over = why is not None
    if run.logs_after_step or run.is_over:
        loss_log.write(run)
    if why is not None:
        run.say(why)
    evaluates = run.evaluates_after_step or run.is_over
    if evaluates:
        with run.profile.section("dev"):
            evaluate(run)
        run.position.over = run.position.over or stops_early(run)
        if run.position.over and run.logged_at < run.position.step:
            loss_log.write(run)
        save(run)
    if stop_asked():
        if not evaluates:
            save(run)
        raise InterruptedRunError(
            f"stopped at step {run.total_step} of {run.phase.steps} ({run.phase.title}); the state is saved, --resume goes on"
        )
