"""Runs that are stopped and go on, held against the same run that nobody stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcli.engine.events import CheckpointWritten, Evaluated, Event, Logged, Note, PhaseDone, PhaseStarted, StepDone
from kdcli.engine.stages import Phase
from kdcli.errors import InterruptedRunError
from kdcli.models.student import STUDENT
from tests.engine.phases import Told, differing, stopping_at, trainer, weights


@dataclass(frozen=True)
class Run:
    """What a run leaves and what it told."""

    weights: dict[str, Tensor]
    told: Told

    @property
    def steps(self) -> list[int]:
        """The steps that were taken."""
        return [event.step for event in self.told.of(StepDone)]

    def story(self) -> list[Event]:
        """What was told of the training, without what is said of stopping and going on."""
        kinds = (StepDone, Logged, Evaluated, PhaseDone)
        notes = [note for note in self.told.of(Note) if not note.warning]
        return [event for event in self.told.events if isinstance(event, kinds) or event in notes]


@dataclass(frozen=True)
class Course:
    """A run that can be repeated.

    Attributes:
        make: a new phase, in the state before its first step.
        settings: of the training.
        scores: what its evaluations find, one after the other, in place of the student's true scores.
    """

    make: Callable[[], Phase]
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: Sequence[float] = ()

    def run(self, folder: Path, told: Told | None = None, evaluated: int = 0) -> Run:
        """Run it from where the folder's checkpoint is; ``evaluated`` evaluations have been."""
        made, told = self.make(), told or Told()
        if self.scores:
            given = iter(self.scores[evaluated:])
            made.score = lambda logits: {STUDENT: {"accuracy": next(given)}}
        with suppress(InterruptedRunError):
            trainer(folder, told, **self.settings).run(made)
        return Run(weights(made), told)

    def assert_resumed_equals(self, whole: Run, step: int, folder: Path) -> None:
        """Stop it after a step, go on, and compare the weights to the last bit, and all that was told."""
        first = self.run(folder, stopping_at(step))
        assert first.steps == whole.steps[: whole.steps.index(step) + 1]
        torch.manual_seed(12345)
        rest = self.run(folder, evaluated=len(first.told.of(Evaluated)))
        assert rest.told.of(PhaseStarted)[0].step == step
        assert differing(rest.weights, whole.weights) == []
        assert first.story() + rest.story() == whole.story()

    def assert_killed_equals(self, whole: Run, step: int, saved: int, folder: Path) -> None:
        """End it at once when a step is done, before anything is saved, and go on from the checkpoint before."""
        told = stopping_at(step, times=2)
        with pytest.raises(KeyboardInterrupt):
            self.run(folder, told)
        assert told.of(CheckpointWritten)[-1].step == saved
        rest = self.run(folder, evaluated=len(told.of(Evaluated)))
        assert rest.told.of(PhaseStarted)[0].step == saved
        assert rest.steps == whole.steps[whole.steps.index(saved) + 1 :]
        assert differing(rest.weights, whole.weights) == []
        assert rest.story() == whole.story()[len(whole.story()) - len(rest.story()) :]
