"""THE training loop: every model of kdcli is trained here.

A step is one global batch. It is cut into micro-batches over accumulation and processes; the counts that the terms divide by
are those of the whole batch, so that the cut changes nothing but memory and time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from kdcli.data.batching import Batch, Samples, epoch_batches
from kdcli.engine import checkpoint
from kdcli.engine.checkpoint import Position, State
from kdcli.engine.events import (
    CheckpointWritten,
    Evaluated,
    Events,
    Logged,
    Note,
    PhaseDone,
    PhaseStarted,
    StepDone,
)
from kdcli.engine.inference import EVALUATION_BATCH, predict
from kdcli.engine.interruption import StopRequest, stop_on_signal
from kdcli.engine.objective import Objective, ParameterKind
from kdcli.engine.optimisation import RateSchedule, make_optimizer, rate_factor
from kdcli.engine.runtime import restore_rng_state, rng_state
from kdcli.errors import InterruptedRunError, RunFailedError
from kdcli.losses.projection import Projections
from kdcli.losses.term import Term
from kdcli.models.output import Output, Wanted
from kdcli.recipe.schedule import Moment
from kdcli.recipe.schema import Schedule, Training, Until

Scores = dict[str, dict[str, float]]
Teaching = Callable[[Batch, Mapping[str, Wanted]], dict[str, Output]]


@dataclass
class Stage:
    """A part of a phase.

    Attributes:
        steps: optimiser steps at the most.
        terms: what is minimised.
        learning_rates: peak rates of body, head and projections.
        warmup, schedule: how the rates rise and fall; None takes the trainer's settings.
        freeze: places (``embeddings``, ``head``, numbers of layers) that stay as they are.
        until: a rule for moving on earlier.
    """

    name: str
    steps: int
    terms: Sequence[Term]
    learning_rates: Mapping[ParameterKind, float]
    warmup: float | None = None
    schedule: RateSchedule | None = None
    freeze: Sequence[int | str] = ()
    until: Until | None = None


@dataclass
class Phase:
    """One model and how it is trained.

    Attributes:
        name: keys its checkpoints and log entries.
        title: what a person reads.
        learner: what is trained; answers by model name.
        stages: one after the other.
        train, dev: tokenised splits.
        ensemble: the frozen teachers, or None; asked about a batch with what is needed of whom.
        projections: the learnable maps of all stages' terms.
        score: dev logits [n, C] by model → scores by model and metric.
        metric: the metric by which the best weights are kept, in the last stage.
        seed: of batches, dropout and projections.
    """

    name: str
    title: str
    learner: nn.Module
    stages: Sequence[Stage]
    train: Samples
    dev: Samples
    ensemble: Teaching | None
    score: Callable[[Mapping[str, NDArray[np.float32]]], Scores]
    metric: str
    seed: int
    projections: Projections = field(default_factory=Projections)

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)


@dataclass
class Trainer:
    """Runs phases.

    Attributes:
        accelerator: device, precision and processes.
        settings: the recipe's training block.
        events: who is told.
        checkpoints: folder with one checkpoint per phase.
        stop: asked by a signal.
    """

    accelerator: Accelerator
    settings: Training
    events: Events
    checkpoints: Path
    stop: StopRequest = field(default_factory=StopRequest)

    def run(self, phase: Phase) -> float:
        """Train a phase from its checkpoint, or from the start; leaves the best weights in the learner.

        SIGINT and SIGTERM are taken as a wish to stop after the step at hand; a second one ends the process as usual.

        Returns:
            The best dev score (mean over the models that learn).

        Raises:
            InterruptedRunError: a signal asked to stop; the state is saved.
            RunFailedError: the gradient became infinite or not a number.
        """
        with stop_on_signal(self._say_stopping) as self.stop:
            return self._run(phase)

    def _say_stopping(self) -> None:
        self.events.emit(Note("stopping after this step; once more stops at once", warning=True))

    def _run(self, phase: Phase) -> float:
        state = checkpoint.load(self.checkpoints / phase.name)
        position = state.position if state else Position()
        best = state.best if state else None
        before = sum(stage.steps for stage in phase.stages[: position.stage])
        self.events.emit(PhaseStarted(phase.name, phase.title, before + position.step, phase.steps))
        for row in range(position.stage, len(phase.stages)):
            if row > position.stage:
                position.stage, position.step, position.over = row, 0, False
                position.window, position.window_steps = [], 0
            run = _StageRun(self, phase, row, position, best)
            if state is not None:
                run.restore(state)
                state = None
            best = run.train()
        if best is not None:
            phase.learner.load_state_dict(best)
        score = position.best_score if position.best_score is not None else float("nan")
        self.events.emit(PhaseDone(phase.name, score))
        return score


class _StageRun:
    """One stage while it is trained."""

    def __init__(self, trainer: Trainer, phase: Phase, row: int, position: Position, best: dict[str, Tensor] | None) -> None:
        self.trainer, self.phase, self.stage = trainer, phase, phase.stages[row]
        self.position, self.best = position, best
        self.is_last = row == len(phase.stages) - 1
        self.steps_before = sum(stage.steps for stage in phase.stages[:row])
        self.accelerator = trainer.accelerator
        self.device = self.accelerator.device
        settings = trainer.settings
        set_seed(phase.seed * 1000 + row + self.accelerator.process_index * 7919)
        self.row = row
        self.objective = Objective(phase.learner, self.stage.terms, phase.projections).to(self.device)
        self.objective.freeze(self.stage.freeze)
        optimizer = make_optimizer(self.objective, self.stage.learning_rates, settings)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.model: Any
        self.model, self.optimizer = self.accelerator.prepare(self.objective, optimizer)
        self.parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self.per_epoch = -(-len(phase.train) // settings.batch_size)
        self.log_every = max(1, min(50, self.stage.steps // 50))
        self.evaluate_every = max(1, self.per_epoch // settings.evaluations_per_epoch)
        self.look_every = max(1, round(self.stage.until.window * self.per_epoch)) if self.stage.until else 0
        self.window = torch.zeros(self.objective.parts, device=self.device)
        self.remarked: set[str] = set()
        self._forget_sums()

    def restore(self, state: State) -> None:
        """Put everything where the checkpoint had it."""
        self.objective.load_state_dict(state.objective)
        self.optimizer.load_state_dict(state.optimizer)
        if state.scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        restore_rng_state(state.random[self.accelerator.process_index % len(state.random)])
        if self.position.window and self.accelerator.is_main_process:
            self.window += torch.tensor(self.position.window, device=self.device)

    def train(self) -> dict[str, Tensor] | None:
        """All steps that are left; returns the best weights so far."""
        self.model.train()
        batches: list[NDArray[np.int64]] = []
        epoch = -1
        while self.position.step < self.stage.steps and not self.position.over:
            step = self.position.step
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                lengths = self.phase.train.lengths
                batches = epoch_batches(lengths, self.trainer.settings.batch_size, self.phase.seed, epoch)
            self._step(batches[step % self.per_epoch])
            self.position.step += 1
            self._after_step(len(batches[step % self.per_epoch]))
        self.accelerator.free_memory(self.model, self.optimizer)
        return self.best

    def _step(self, rows: NDArray[np.int64]) -> None:
        """One optimiser step over one global batch."""
        processes = self.accelerator.num_processes
        self.objective.begin(self._moment())
        shares = self._shares(rows)
        has_share = len(shares) > 0
        micro_batches = [self.phase.train.batch(part).to(self.device) for part in shares or [rows[:1]]]
        counts = torch.zeros_like(self.sums)
        for batch in micro_batches:
            counts += self.objective.counts(batch).to(self.device) * has_share
        whole: Tensor = self.accelerator.reduce(counts, "sum")
        whole = whole.clamp(min=1.0)
        self._set_rate()
        self.objective.observe(self._logs_now())
        weights = self.objective.weights
        for place, batch in enumerate(micro_batches):
            waits = processes > 1 and place < len(micro_batches) - 1
            with self.accelerator.no_sync(self.model) if waits else nullcontext():
                values = self.model(batch, self._taught(batch)) / whole * has_share
                self.accelerator.backward((values * weights).sum() * processes)
            self.window += values.detach()
            self.sums += values.detach() * weights
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.trainer.settings.clip_norm)
        self._guard(norm, micro_batches, whole)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.norm = norm

    def _taught(self, batch: Batch) -> dict[str, Output]:
        """What the teachers say that this step asks."""
        needs = self.objective.teacher_needs()
        return self.phase.ensemble(batch, needs) if self.phase.ensemble is not None and needs else {}

    def _moment(self) -> Moment:
        epochs = -(-self.stage.steps // self.per_epoch)
        step = self.position.step
        return Moment(step, self.stage.steps, step // self.per_epoch, epochs, self.phase.seed, self.row)

    def _shares(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This process's micro-batches of a global batch; none where a last batch is smaller than the processes.

        Samples that a term compares with each other stay together.
        """
        processes, parts = self.accelerator.num_processes, self.trainer.settings.accumulation
        size = self.objective.group or len(rows)
        groups = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        pieces = min(len(groups), processes * parts)
        bounds = [len(groups) * piece // pieces for piece in range(pieces + 1)]
        shares = [np.concatenate(groups[begin:end]) for begin, end in itertools.pairwise(bounds)]
        return shares[self.accelerator.process_index :: processes]

    def _set_rate(self) -> None:
        settings, stage = self.trainer.settings, self.stage
        warmup = settings.warmup if stage.warmup is None else stage.warmup
        factor = rate_factor(self.position.step, stage.steps, warmup, stage.schedule or settings.schedule)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def _guard(self, norm: Any, micro_batches: list[Batch], counts: Tensor) -> None:
        """Stop at a gradient that is not finite, naming the term (on a GPU only when logging: looking costs a wait)."""
        if self.accelerator.scaler is not None or norm is None or (self.device.type == "cuda" and not self._logs_now()):
            return
        if not torch.isfinite(torch.as_tensor(norm)):
            culprits = self._terms_without_finite_gradient(micro_batches, counts)
            raise RunFailedError(
                f"{self.phase.name}, step {self.steps_before + self.position.step + 1}: the gradient is not finite; "
                f"it comes from {', '.join(culprits) or 'the weights themselves'}. Lower --learning-rate, or use "
                "--precision fp32; --resume goes on from the last checkpoint"
            )

    def _terms_without_finite_gradient(self, micro_batches: list[Batch], counts: Tensor) -> list[str]:
        culprits = set()
        for batch in micro_batches:
            outputs = {**self._taught(batch), **self.phase.learner(batch, self.objective.needs)}
            shares = torch.split(counts, [term.parts for term in self.stage.terms])
            for term, share in zip(self.stage.terms, shares, strict=True):
                value = (term(batch, outputs) / share).sum() * term.at_moment(term.weight)
                if not value.requires_grad:
                    continue
                gradients = torch.autograd.grad(value, self.parameters, retain_graph=True, allow_unused=True)
                if not all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None):
                    culprits.add(term.name)
        return sorted(culprits)

    def _logs_now(self) -> bool:
        return (self.position.step + 1) % self.log_every == 0 or self.position.step + 1 == self.stage.steps

    def _forget_sums(self) -> None:
        self.sums = torch.zeros(self.objective.parts, device=self.device)
        self.steps_summed = 0

    def _after_step(self, samples: int) -> None:
        step, phase = self.position.step, self.phase
        total_step = self.steps_before + step
        self.steps_summed += 1
        self.trainer.events.emit(StepDone(phase.name, self.stage.name, total_step, phase.steps, samples))
        why = self._reason_to_move_on()
        self.position.over = why is not None
        at_end = step == self.stage.steps or self.position.over
        if step % self.log_every == 0 or at_end:
            self._log(total_step)
        if why is not None:
            self._say(why, total_step)
        evaluates = at_end or (step % self.evaluate_every == 0 and self.stage.steps - step >= self.evaluate_every // 2)
        if evaluates:
            self._evaluate(total_step)
            self.position.over = self.position.over or self._is_stale(total_step)
            if self.position.over and self.steps_summed:
                self._log(total_step)
            self._save(total_step)
        if self._stop_asked():
            if not evaluates:
                self._save(total_step)
            raise InterruptedRunError(
                f"stopped at step {total_step} of {phase.steps} ({phase.title}); the state is saved, --resume goes on"
            )

    def _reason_to_move_on(self) -> str | None:
        """What is to be said if the stage's rule for moving on is met; looked at once per window, alike on all processes."""
        until = self.stage.until
        if until is None:
            return None
        self.position.window_steps += 1
        if self.position.window_steps < self.look_every:
            return None
        means: Tensor = self.accelerator.reduce(self.window, "sum") / self.position.window_steps
        value = self.objective.by_term(means)[until.loss] / self.objective.scales()[until.loss]
        self.window.zero_()
        self.position.window_steps = 0
        if value >= until.below:
            return None
        return f"{self.stage.name}: {until.loss} is {value:.4g}, below {until.below:g}: moving on"

    def _is_stale(self, total_step: int) -> bool:
        """Whether dev has not become better for as many evaluations as early stopping waits for."""
        patience = self.trainer.settings.early_stopping
        if patience is None or not self.is_last or self.position.stale < patience:
            return False
        if self.position.step < self.stage.steps:
            self._say(f"{self.stage.name}: no better dev score for {patience} evaluations: stopping early", total_step)
        return True

    def _say(self, text: str, total_step: int) -> None:
        self.trainer.events.emit(Note(f"step {total_step} of {self.phase.steps}, {text}"))

    def _stop_asked(self) -> bool:
        if self.accelerator.num_processes == 1:
            return self.trainer.stop.asked
        asked = torch.tensor([float(self.trainer.stop.asked)], device=self.device)
        return bool(self.accelerator.reduce(asked, "sum").item())

    def _log(self, total_step: int) -> None:
        summed: Tensor = self.accelerator.reduce(self.sums, "sum")
        means = summed / self.steps_summed
        values = {f"loss/{name}": value for name, value in self.objective.by_term(means).items()}
        values |= {"loss": means.sum().item(), "learning-rate": self.optimizer.param_groups[0]["lr"]}
        if self.norm is not None:
            values["gradient-norm"] = float(self.norm)
        for term in self.stage.terms:
            if isinstance(term.weight, Schedule):
                values[f"{term.name}/weight"] = term.at_moment(term.weight)
        figures, remarks = self.objective.observed()
        for remark in remarks:
            if remark not in self.remarked:
                self.remarked.add(remark)
                self.trainer.events.emit(Note(remark, warning=True))
        values |= figures
        epoch = self.position.step / self.per_epoch
        self.trainer.events.emit(Logged(self.phase.name, self.stage.name, total_step, epoch, values))
        self._forget_sums()

    def _evaluate(self, total_step: int) -> None:
        self.model.eval()
        logits = predict(
            self.phase.learner,
            self.phase.dev,
            EVALUATION_BATCH,
            self.device,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            gather=gather_object,
        )
        self.model.train()
        scores = self.phase.score(logits)
        score = float(np.mean([values[self.phase.metric] for values in scores.values()]))
        best = self.is_last and (self.position.best_score is None or score > self.position.best_score)
        self.position.stale = 0 if best else self.position.stale + 1
        if best:
            self.position.best_score, self.position.best_step = score, total_step
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.phase.learner.state_dict().items()}
        epoch = self.position.step / self.per_epoch
        self.trainer.events.emit(
            Evaluated(self.phase.name, self.stage.name, total_step, epoch, scores, self.phase.metric, best)
        )

    def _save(self, total_step: int) -> None:
        states = gather_object([rng_state()])
        if self.stage.until is not None:
            window: Tensor = self.accelerator.reduce(self.window, "sum")
            self.position.window = window.tolist()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            checkpoint.save(
                self.trainer.checkpoints / self.phase.name,
                State(
                    position=self.position,
                    objective=self.objective.state_dict(),
                    optimizer=self.optimizer.state_dict(),
                    scaler=scaler.state_dict() if scaler is not None else None,
                    random=states,
                    best=self.best,
                ),
            )
        self.accelerator.wait_for_everyone()
        self.trainer.events.emit(CheckpointWritten(self.phase.name, total_step))
