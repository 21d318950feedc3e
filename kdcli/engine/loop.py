"""THE training loop: every model of kdcli is trained here.

A step is one global batch. It is cut into micro-batches over accumulation and processes; the counts that the terms divide by
are those of the whole batch, so that the cut changes nothing but memory and time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from kdcli.engine import checkpoint
from kdcli.engine.checkpoint import Position
from kdcli.engine.events import Events, Note, PhaseDone, PhaseStarted
from kdcli.engine.interruption import StopRequest, stop_on_signal
from kdcli.engine.phase import Phase
from kdcli.engine.profile import Profile
from kdcli.engine.stage_run import StageRun
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

    def _say_stopping(self) -> None:
        self.events.emit(Note("stopping after this step; once more stops at once", warning=True))

    def _run(self, phase: Phase) -> float:
        state = checkpoint.load(self.checkpoints / phase.name)
        position = state.position if state else Position()
        seconds: Counter[str] = Counter()
        samples = 0
        before = sum(stage.steps for stage in phase.stages[: position.stage])
        self.events.emit(PhaseStarted(phase.name, phase.title, before + position.step, phase.steps))
        for row in range(position.stage, len(phase.stages)):
            if row > position.stage:
                position.stage, position.step, position.over = row, 0, False
                position.window, position.window_steps = [], 0
            run = StageRun(self, phase, row, position)
            if state is not None:
                run.restore(state)
                state = None
            run.train()
            seconds.update(run.seconds)
            samples += run.samples
        best = checkpoint.best_weights(self.checkpoints / phase.name)
        if best is not None:
            phase.learner.load_state_dict(best)
        score = position.best_score if position.best_score is not None else float("nan")
        seconds.update(self.profile.take())
        self.events.emit(PhaseDone(phase.name, score, dict(seconds), samples))
        return score
