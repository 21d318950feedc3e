"""One stage while it is trained: steps, logs, evaluations, checkpoints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.batching import Batch, epoch_batches
from kdcli.engine import checkpoint
from kdcli.engine.checkpoint import Position, State
from kdcli.engine.events import CheckpointWritten, Evaluated, Logged, Note, StepDone
from kdcli.engine.feed import Cut, Delivery, deliveries
from kdcli.engine.inference import EVALUATION_BATCH, predict
from kdcli.engine.objective import Objective, log_group
from kdcli.engine.optimisation import make_optimizer, rate_factor
from kdcli.engine.phase import Phase, ReadsAhead
from kdcli.engine.runtime import give_back_memory, restore_rng_state, rng_state
from kdcli.errors import InterruptedRunError, RunFailedError
from kdcli.models.finite import listed, tensors_not_finite
from kdcli.models.output import Output
from kdcli.models.student import STUDENT, STUDENT_NAME
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.schedule import Moment
from kdcli.recipe.schema import settled
from kdcli.tasks.kind import rows_not_finite

if TYPE_CHECKING:
    from kdcli.engine.loop import Trainer

_MOST_LEFT_OUT = 25  # halved as often, the scale of fp16 falls from 65536 below 0.002
_CPU_TOKENS = 512  # matrix products are near their full speed there; four BERT-base layers keep 130 MB of activations


class StageRun:
    """One stage while it is trained."""

    def __init__(self, trainer: Trainer, phase: Phase, row: int, position: Position) -> None:
        self.trainer, self.phase, self.stage = trainer, phase, phase.stages[row]
        self.position = position
        self.is_best = False
        self.is_last = row == len(phase.stages) - 1
        self.steps_before = sum(stage.steps for stage in phase.stages[:row])
        self.accelerator = trainer.accelerator
        self.device = self.accelerator.device
        settings = trainer.settings
        set_seed((phase.seed * 1000 + row + self.accelerator.process_index * 7919) % 2**32)  # NumPy takes no larger one
        self.row = row
        self.profile = trainer.profile
        self.objective = Objective(phase.learner, self.stage.terms, phase.projections, self.profile).to(self.device)
        self.objective.freeze(self.stage.freeze)
        optimizer = make_optimizer(self.objective, self.stage.learning_rates, settings, self.stage.model_rates)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.model: Any
        self.model, self.optimizer = self.accelerator.prepare(self.objective, optimizer)
        self.parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self.per_epoch = -(-len(phase.train) // settled(settings.batch_size))
        self.log_every = max(1, min(50, self.stage.steps // 50))
        self.evaluate_every = max(1, math.floor(self.per_epoch / settled(settings.evaluations_per_epoch)))
        self.look_every = max(1, round(self.stage.until.window * self.per_epoch)) if self.stage.until else 0
        self.window = torch.zeros(self.objective.parts, device=self.device)
        self.not_finite = torch.zeros((), dtype=torch.int64, device=self.device)  # steps, one after another, up to now
        self.remarked: set[str] = set()
        self.seconds: Counter[str] = Counter()
        self.samples = 0
        self._forget_sums()

    def restore(self, state: State) -> None:
        """Put everything where the checkpoint had it.

        Raises:
            RunFailedError: its weights or the optimiser's moments are not finite, so that nothing can follow from them.
        """
        broken = self._not_finite(state.objective.items(), state.optimizer, state.position.window)
        if broken:
            folder = self.trainer.checkpoints / self.phase.name
            raise RunFailedError(
                f"{folder}: the checkpoint holds values that are not finite ({listed(broken)}); remove the folder to start "
                "the phase again"
            )
        self.objective.load_state_dict(state.objective)
        self.optimizer.load_state_dict(state.optimizer)
        if state.scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        restore_rng_state(state.random[self.accelerator.process_index % len(state.random)])
        if self.position.window and self.accelerator.is_main_process:
            self.window += torch.tensor(self.position.window, device=self.device)

    def train(self) -> None:
        """All steps that are left."""
        self.model.train()
        give_back_memory()
        cut = Cut(
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.trainer.settings.accumulation,
            self.objective.group,
            _CPU_TOKENS if self.device.type == "cpu" else 0,
        )
        coming = deliveries(self._batches_left(), self.phase.train, self.phase.ensemble, cut, self.device)
        with self.profile.section("other"), closing(coming):
            while self.position.step < self.stage.steps and not self.position.over:
                with self.profile.section("data"):
                    delivery = next(coming)
                self._step(delivery)
                self.position.step += 1
                self._after_step(delivery.samples)
        self.accelerator.free_memory(self.model, self.optimizer)

    def _batches_left(self) -> Iterator[NDArray[np.int64]]:
        """Sample numbers of the global batches that are still to come."""
        batches: list[NDArray[np.int64]] = []
        epoch = -1
        for step in range(self.position.step, self.stage.steps):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                lengths = self.phase.train.lengths
                batches = epoch_batches(lengths, settled(self.trainer.settings.batch_size), self.phase.seed, epoch)
                if isinstance(self.phase.ensemble, ReadsAhead):
                    self.phase.ensemble.refresh()
            yield batches[step % self.per_epoch]

    def _step(self, delivery: Delivery) -> None:
        """One optimiser step over one global batch."""
        processes, batches = self.accelerator.num_processes, delivery.micro_batches
        self.objective.begin(self._moment())
        counts = torch.zeros_like(self.sums)
        for batch in batches:
            counts += self.objective.counts(batch) * delivery.counts
        whole: Tensor = self.accelerator.reduce(counts, "sum")
        whole = whole.clamp(min=1.0)
        self._set_rate()
        self.objective.observe(self._logs_now())
        weights: Tensor = self.objective.weights  # type: ignore[assignment]
        found = torch.zeros_like(self.sums)
        for place, batch in enumerate(batches):
            waits = processes > 1 and place < len(batches) - 1
            taught = self._taught(batch)
            with self.accelerator.no_sync(self.model) if waits else nullcontext():
                with self.profile.section("student"):
                    values = self.model(batch, taught) / whole * delivery.counts
                with self.profile.section("backward"):
                    self.accelerator.backward((values * weights).sum() * processes)
            found += values.detach()
        with self.profile.section("optimiser"):
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.trainer.settings.clip_norm)
            self._add(found, weights, norm)
            self._guard(norm, batches, whole)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.norm = norm

    def _add(self, values: Tensor, weights: Tensor, norm: Any) -> None:
        """Count a step's losses [parts], but not those of a step that the loss scaler is going to leave out (fp16)."""
        counted = torch.ones((), device=self.device)
        if self.accelerator.scaler is not None and norm is not None:
            counted = torch.isfinite(torch.as_tensor(norm, device=self.device)).to(counted.dtype)
            values = torch.where(counted > 0, values, 0.0)
        self.window += values
        self.sums += values * weights
        self.steps_summed += counted

    def _taught(self, batch: Batch) -> dict[str, Output]:
        """What the teachers say that this step asks."""
        needs = self.objective.teacher_needs()
        return self.phase.ensemble(batch, needs) if self.phase.ensemble is not None and needs else {}

    def _moment(self) -> Moment:
        epochs = -(-self.stage.steps // self.per_epoch)
        step = self.position.step
        return Moment(step, self.stage.steps, step // self.per_epoch, epochs, self.phase.seed, self.row)

    def _set_rate(self) -> None:
        settings, stage = self.trainer.settings, self.stage
        warmup = settings.warmup if stage.warmup is None else stage.warmup
        factor = rate_factor(self.position.step, stage.steps, warmup, stage.schedule or settings.schedule)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def _guard(self, norm: Any, micro_batches: list[Batch], counts: Tensor) -> None:
        """Stop at a gradient that is not finite, naming the term.

        On a GPU only when logging, because looking costs a wait; nothing is saved in between without :meth:`_refuse_to_save`.
        With a loss scaler (fp16) such a step is left out and the scale halved, so that only a row of them is a failure.
        """
        if norm is None:
            return
        broken = ~torch.isfinite(torch.as_tensor(norm, device=self.device))
        scaled = self.accelerator.scaler is not None
        self.not_finite = torch.where(broken, self.not_finite + 1, 0 if scaled else self.not_finite)
        if self.device.type == "cuda" and not self._logs_now():
            return
        if int(self.not_finite) >= (_MOST_LEFT_OUT if scaled else 1):
            culprits = self._terms_without_finite_gradient(micro_batches, counts)
            how = f"the gradient has not been finite for {int(self.not_finite)} steps, whatever the loss scale"
            raise RunFailedError(
                f"{self._here()}: {how if scaled else 'the gradient is not finite'}; "
                f"it comes from {', '.join(culprits) or 'the weights themselves'}. Lower --learning-rate, or use "
                "--precision fp32; --resume goes on from the last checkpoint"
            )

    def _here(self) -> str:
        """The phase and the step at work, counted from 1, as messages begin."""
        return f"{self.phase.name}, step {self.steps_before + self.position.step + 1}"

    def _not_finite(
        self, weights: Iterable[tuple[str, Tensor]], optimizer: Mapping[str, Any], window: Sequence[float]
    ) -> list[str]:
        """What of a state is not finite: names of weights, of the optimiser's moments, of the losses' window."""
        moments = (
            (f"{key} of parameter {row}", value)
            for row, values in optimizer["state"].items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        )
        found = tensors_not_finite(weights) + tensors_not_finite(moments)
        return found if np.isfinite(window).all() else [*found, "the losses of the stage's rule for moving on"]

    def _refuse_to_save(self, total_step: int) -> None:
        """Stop before a checkpoint is written from which nothing can go on; looks at every device's state alike.

        Raises:
            RunFailedError: weights, projections or the optimiser's moments are not finite.
        """
        broken = self._not_finite(self.objective.named_parameters(), self.optimizer.state_dict(), self.position.window)
        if broken:
            raise RunFailedError(
                f"{self.phase.name}, step {total_step}: weights or the optimiser's moments are not finite ({listed(broken)}), "
                "and no checkpoint is written of them. Lower --learning-rate, or use --precision fp32; --resume goes on from "
                "the last checkpoint"
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

    def _seconds(self) -> dict[str, float]:
        """Where the time went since the last log entry."""
        taken = self.profile.take()
        self.seconds.update(taken)
        self.samples += self.samples_logged
        return {name: round(seconds, 6) for name, seconds in taken.items()}

    def _forget_sums(self) -> None:
        self.sums = torch.zeros(self.objective.parts, device=self.device)
        self.steps_summed = torch.zeros((), device=self.device)  # without those that fp16's loss scaler left out
        self.logged_at, self.samples_logged = self.position.step, 0

    def _after_step(self, samples: int) -> None:
        step, phase = self.position.step, self.phase
        total_step = self.steps_before + step
        self.samples_logged += samples
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
            with self.profile.section("dev"):
                self._evaluate(total_step)
            self.position.over = self.position.over or self._is_stale(total_step)
            if self.position.over and self.logged_at < step:
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
        if not value < until.below:  # not finite is not below either
            return None
        return f"{self.stage.name}: {until.loss} is {value:.4g}, below {until.below:g}: moving on"

    def _is_stale(self, total_step: int) -> bool:
        """Whether dev has not become better for as many evaluations as early stopping waits for."""
        patience = self.trainer.settings.early_stopping
        if patience is None or not self.is_last or self.position.stale < settled(patience):
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
        means = summed / self.steps_summed.clamp(min=1.0)
        if not bool(means.isfinite().all()):
            broken = [name for name, value in self.objective.by_term(means).items() if not math.isfinite(value)]
            raise RunFailedError(
                f"{self.phase.name}, step {total_step}: the value of {', '.join(broken)} is not finite. Lower --learning-rate, "
                "or use --precision fp32; --resume goes on from the last checkpoint"
            )
        values = {f"loss/{name}": value for name, value in self.objective.by_term(means).items()}
        values |= {"loss": means.sum().item(), "learning-rate": self.optimizer.param_groups[0]["lr"]}
        if self.norm is not None and math.isfinite(self.norm):
            values["gradient-norm"] = float(self.norm)
        for term in self.stage.terms:
            if isinstance(term.weight, Schedule):
                values[f"{log_group(term)}/weight"] = term.at_moment(term.weight)
        figures, remarks = self.objective.observed()
        for remark in remarks:
            if remark not in self.remarked:
                self.remarked.add(remark)
                self.trainer.events.emit(Note(remark, warning=True))
        values |= figures
        epoch = self.position.step / self.per_epoch
        self.trainer.events.emit(
            Logged(self.phase.name, self.stage.name, total_step, epoch, values, self._seconds(), self.samples_logged)
        )
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
        give_back_memory()
        for name, values in logits.items():
            broken = rows_not_finite(values)
            if len(broken):
                raise RunFailedError(
                    f"{self.phase.name}, step {total_step}: the outputs of {_called(name)} are not finite for {len(broken)} of "
                    f"{len(values)} dev samples, so that they have no score. Lower --learning-rate, or use --precision fp32; "
                    "--resume goes on from the last checkpoint"
                )
        scores = {_called(name): values for name, values in self.phase.score(logits).items()}
        score = float(np.mean([values[self.phase.metric] for values in scores.values()]))
        best = self.is_last and self._is_to_be_kept(score)
        if best:
            self.position.best_score, self.position.best_step = score, total_step
        self.is_best = best
        epoch = self.position.step / self.per_epoch
        self.trainer.events.emit(
            Evaluated(self.phase.name, self.stage.name, total_step, epoch, scores, self.phase.metric, best)
        )

    def _is_to_be_kept(self, score: float) -> bool:
        """Whether the weights of an evaluation take the place of those that are kept."""
        position = self.position
        rises = position.top_score is None or score > position.top_score
        position.stale = 0 if rises else position.stale + 1
        if rises:
            position.top_score = score
        assert position.top_score is not None
        if rises or self.trainer.settings.keep == "best":
            return rises
        share = min(1.0, max(0.0, position.top_score))
        return score >= position.top_score - math.sqrt(share * (1 - share) / len(self.phase.dev))

    def _save(self, total_step: int) -> None:
        with self.profile.section("checkpoint"):
            self._write_checkpoint(total_step)
        self.trainer.events.emit(CheckpointWritten(self.phase.name, total_step))

    def _write_checkpoint(self, total_step: int) -> None:
        states = gather_object([rng_state()])
        if self.stage.until is not None:
            window: Tensor = self.accelerator.reduce(self.window, "sum")
            self.position.window = window.tolist()
        self._refuse_to_save(total_step)
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
                ),
                best=self.phase.learner.state_dict() if self.is_best else None,
            )
        self.is_best = False
        self.accelerator.wait_for_everyone()


def _called(model: str) -> str:
    """What a model is called in messages and logs."""
    return STUDENT_NAME if model == STUDENT else model
