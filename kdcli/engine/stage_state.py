"""One stage while it is trained: its parts, how far it has come, and what has been summed since somebody looked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray

from kdcli.data.batching import Batch, epoch_batches
from kdcli.engine.checkpoint import Position
from kdcli.engine.events import Events, Note
from kdcli.engine.objective import Objective
from kdcli.engine.optimisation import make_optimizer, rate_factor
from kdcli.engine.prefetch import Cut
from kdcli.engine.profile import Profile
from kdcli.engine.stages import Phase, ReadsAhead
from kdcli.models.output import Output
from kdcli.recipe.schedule import Moment
from kdcli.recipe.schema import Training, settled

_CPU_TOKENS = 512  # matrix products are near their full speed there; four BERT-base layers keep 130 MB of activations


class StageRun:
    """One stage while it is trained.

    Args:
        accelerator: device, precision and processes.
        settings: the recipe's training block.
        events: who is told.
        profile: where the time goes.
        folder: of the phase's checkpoint.
        phase: what is trained.
        row: which of the phase's stages.
        position: how far the phase has come.

    Attributes:
        stage, terms: as it is planned, and what it minimises.
        model, optimizer: as the accelerator has prepared them.
        parameters: all that move.
        sums: weighted losses [parts] over the steps since the last log entry, of this process.
        steps_summed: how many of those steps counted; fp16's loss scaler leaves some out.
        window: losses [parts] without their weights over the steps since the rule for moving on was last looked at.
        norm: of the last step's gradient.
        not_finite: steps, one after another up to now, whose gradient was not finite.
        is_best: the weights are better than those that are kept.
        seconds, samples: what the stage has taken, up to its last log entry.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        settings: Training,
        events: Events,
        profile: Profile,
        folder: Path,
        phase: Phase,
        row: int,
        position: Position,
    ) -> None:
        self.accelerator, self.settings, self.events, self.profile = accelerator, settings, events, profile
        self.folder, self.phase, self.row, self.position = folder, phase, row, position
        self.stage, self.terms = phase.stages[row].plan, phase.stages[row].terms
        self.device = accelerator.device
        set_seed((phase.seed * 1000 + row + accelerator.process_index * 7919) % 2**32)  # NumPy takes no larger one
        self.objective = Objective(phase.learner, self.terms, phase.projections, profile).to(self.device)
        self.objective.freeze(self.stage.freeze)
        optimizer = make_optimizer(self.objective, self.stage.learning_rates, settings, self.stage.teacher_rates)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.model: Any
        self.model, self.optimizer = accelerator.prepare(self.objective, optimizer)
        self.parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self.is_last = row == len(phase.stages) - 1
        self.steps_before = sum(stage.plan.steps for stage in phase.stages[:row])
        self.per_epoch = -(-len(phase.train) // settled(settings.batch_size))
        self.log_every = max(1, min(50, self.stage.steps // 50))
        self.evaluate_every = max(1, math.floor(self.per_epoch / settled(settings.evaluations_per_epoch)))
        self.look_every = max(1, round(self.stage.until.window * self.per_epoch)) if self.stage.until else 0
        self.window = torch.zeros(self.objective.parts, device=self.device)
        self.not_finite = torch.zeros((), dtype=torch.int64, device=self.device)
        self.norm: Any = None
        self.is_best = False
        self.remarked: set[str] = set()
        self.seconds: Counter[str] = Counter()
        self.samples = 0
        self.forget_sums()

    def forget_sums(self) -> None:
        """Begin a new log entry."""
        self.sums = torch.zeros(self.objective.parts, device=self.device)
        self.steps_summed = torch.zeros((), device=self.device)
        self.logged_at, self.samples_logged = self.position.step, 0

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        return self.position.over or self.position.step >= self.stage.steps

    @property
    def total_step(self) -> int:
        """Steps taken in the whole phase."""
        return self.steps_before + self.position.step

    @property
    def epoch(self) -> float:
        """Epochs done in this stage."""
        return self.position.step / self.per_epoch

    @property
    def logs_now(self) -> bool:
        """Whether there will be a log entry after the step that is being taken."""
        return (self.position.step + 1) % self.log_every == 0 or self.position.step + 1 == self.stage.steps

    @property
    def logs_after_step(self) -> bool:
        """Whether it is time for a log entry, as it always is at the end."""
        return self.position.step % self.log_every == 0

    @property
    def evaluates_after_step(self) -> bool:
        """Whether it is time to score the dev split, as it always is at the end; not shortly before that."""
        left = self.stage.steps - self.position.step
        return self.position.step % self.evaluate_every == 0 and left >= self.evaluate_every // 2

    def say(self, text: str) -> None:
        """Tell something about the step that has been taken."""
        self.events.emit(Note(f"step {self.total_step} of {self.phase.steps}, {text}"))

    def cut(self) -> Cut:
        """How each global batch is cut."""
        return Cut(
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.settings.accumulation,
            self.objective.group,
            _CPU_TOKENS if self.device.type == "cpu" else 0,
        )

    def batches_left(self) -> Iterator[NDArray[np.int64]]:
        """Sample numbers of the global batches that are still to come."""
        batches: list[NDArray[np.int64]] = []
        epoch = -1
        for step in range(self.position.step, self.stage.steps):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                lengths = self.phase.train.lengths
                batches = epoch_batches(lengths, settled(self.settings.batch_size), self.phase.seed, epoch)
                if isinstance(self.phase.ensemble, ReadsAhead):
                    self.phase.ensemble.refresh()
            yield batches[step % self.per_epoch]

    def moment(self) -> Moment:
        """Where in the stage the step is that is being taken."""
        epochs = -(-self.stage.steps // self.per_epoch)
        step = self.position.step
        return Moment(step, self.stage.steps, step // self.per_epoch, epochs, self.phase.seed, self.row)

    def set_rates(self) -> None:
        """Give the optimiser the learning rates of the step that is being taken."""
        factor = rate_factor(self.position.step, self.stage.steps, self.stage.warmup, self.stage.schedule)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def taught(self, batch: Batch) -> dict[str, Output]:
        """What the teachers say that this step asks."""
        needs = self.objective.teacher_needs()
        return self.phase.ensemble(batch, needs) if self.phase.ensemble is not None and needs else {}
