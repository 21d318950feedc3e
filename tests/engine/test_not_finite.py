"""What is infinite or not a number: the run stops, says where it comes from, and leaves a checkpoint that goes on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcli.data.batching import Batch, Samples
from kdcli.engine import checkpoint, dev_scoring, loop
from kdcli.engine.events import Logged
from kdcli.engine.loop import Trainer
from kdcli.engine.stage_state import StageRun
from kdcli.engine.teacher_outputs import Teaching, stores_for
from kdcli.errors import InterruptedRunError, RunFailedError
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.term import Outputs, Term
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.schema import Until
from tests.engine.phases import (
    WIDTHS,
    Material,
    Part,
    Told,
    all_terms,
    changing,
    differing,
    ensemble,
    labels_alone,
    phase,
    stopping_at,
    train_samples,
    trainer,
    weights,
)


class FiniteValueWithoutGradient(Term):
    """√0: the value is 0, the slope infinite."""

    name = "square-root"

    def needs(self) -> dict[str, Wanted]:
        return {STUDENT: Wanted()}

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor([float(len(batch))])

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        logits = outputs[STUDENT].logits
        return (logits - logits.detach()).square().sum().sqrt()[None]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_gradient_that_is_not_finite_is_blamed_on_its_term_alone(
    accumulation: int, material: Material, tmp_path: Path
) -> None:
    trained = phase(material, terms=lambda bank: [HardLabelsTerm(), FiniteValueWithoutGradient(), *all_terms(bank)[1:]])
    with pytest.raises(RunFailedError) as failure:
        trainer(tmp_path, accumulation=accumulation).run(trained)
    assert "distill, step 1: the gradient is not finite; it comes from square-root." in str(failure.value)


def test_after_a_gradient_that_is_not_finite_the_weights_are_untouched(material: Material, tmp_path: Path) -> None:
    trained = phase(material, terms=lambda bank: [FiniteValueWithoutGradient()])
    before = weights(trained)
    with pytest.raises(RunFailedError, match="square-root"):
        trainer(tmp_path).run(trained)
    assert differing(weights(trained), before) == []


class ExplodesAtStep(HardLabelsTerm):
    """The cross-entropy, times infinity from the third forward pass on."""

    passes = 0

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        self.passes += 1
        return super().forward(batch, outputs) * (float("inf") if self.passes > 2 else 1.0)


def test_the_step_of_a_gradient_that_is_not_finite_is_counted_over_all_stages(material: Material, tmp_path: Path) -> None:
    parts = [Part(4, labels_alone), Part(4, lambda bank: [ExplodesAtStep()])]
    with pytest.raises(RunFailedError, match="step 7"):
        trainer(tmp_path).run(phase(material, parts, teachers=False))


@pytest.mark.parametrize("weight", [changing(0.5, 2.0), changing(0.0, 1.0)])
def test_it_is_blamed_on_its_term_when_weights_change(weight: Schedule, material: Material, tmp_path: Path) -> None:
    """Infinity times a weight of zero is not a number either."""
    made = phase(material, terms=lambda bank: [HardLabelsTerm(weight=weight), FiniteValueWithoutGradient(weight=weight)])
    with pytest.raises(RunFailedError, match=r"it comes from square-root\."):
        trainer(tmp_path).run(made)


class GrowsBeyondAllNumbers(HardLabelsTerm):
    """The cross-entropy times a weight that overflows on its way."""

    name = "overflow"

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        return super().forward(batch, outputs) * 1e36


def test_a_weight_that_grows_too_large_is_blamed_on_its_term(material: Material, tmp_path: Path) -> None:
    made = phase(material, terms=lambda _: [HardLabelsTerm(), GrowsBeyondAllNumbers(weight=changing(1e-36, 1e6, begin=0.5))])
    with pytest.raises(RunFailedError, match=r"step [456]: the gradient is not finite; it comes from overflow\."):
        trainer(tmp_path).run(made)


def embeddings_alone(_: Projections) -> list[Term]:
    """A loss that has no gradient where the embeddings are frozen, beside one whose gradient is infinite."""
    return [HiddenMseTerm({"bert": {0: 0}}, 32, WIDTHS), FiniteValueWithoutGradient()]


def test_it_is_blamed_on_its_term_where_another_term_reaches_frozen_parts_alone(material: Material, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"it comes from square-root\."):
        trainer(tmp_path).run(phase(material, [Part(2, embeddings_alone, freeze=["embeddings"])]))


Spoil = Callable[[StageRun], None]


def _in_weights(run: StageRun) -> None:
    next(parameter for name, parameter in run.objective.named_parameters() if "classifier" in name).data[0] = float("nan")


def _in_projections(run: StageRun) -> None:
    next(iter(run.phase.projections.parameters())).data[0, 0] = float("inf")


def _in_moments(run: StageRun) -> None:
    state = run.optimizer.state
    state[run.parameters[0]]["exp_avg_sq"].view(-1)[0] = float("nan")


def projected(bank: Projections) -> list[Term]:
    """One loss with a learnable map."""
    return [HardLabelsTerm(), HiddenMseTerm({"roberta": {1: 3}}, 32, WIDTHS, bank, "teacher")]


def spoil_after(at: int, monkeypatch: pytest.MonkeyPatch, spoil: Spoil = _in_weights) -> None:
    """Let something in the state of a stage be not finite after a certain step."""
    after_step = loop.after_step

    def spoilt(run: StageRun, samples: int, stop_asked: Callable[[], bool]) -> None:
        if run.total_step == at:
            spoil(run)
        after_step(run, samples, stop_asked)

    monkeypatch.setattr(loop, "after_step", spoilt)


@pytest.mark.parametrize("spoil", [_in_weights, _in_projections, _in_moments])
@pytest.mark.parametrize("step", [2, 4])
def test_no_checkpoint_is_written_from_what_is_not_finite(
    spoil: Spoil, step: int, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first evaluation of two steps, and at the last one."""
    made = phase(material, [4], terms=projected)
    spoil_after(step, monkeypatch, spoil)
    with pytest.raises(RunFailedError, match=r"not finite"):
        trainer(tmp_path).run(made)
    saved = checkpoint.load(tmp_path / "checkpoints" / "distill")
    assert (saved.position.step if saved else 0) < step


def test_resuming_after_what_is_not_finite_ends_as_if_nothing_had_been(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_after(4, monkeypatch)
    with pytest.raises(RunFailedError, match=r"not finite"):
        trainer(tmp_path).run(phase(material, [4], terms=labels_alone, teachers=False))
    monkeypatch.undo()
    resumed, whole = (phase(material, [4], terms=labels_alone, teachers=False) for _ in range(2))
    trainer(tmp_path).run(resumed)
    trainer(tmp_path / "whole").run(whole)
    assert differing(weights(resumed), weights(whole)) == []


def test_stopping_does_not_save_weights_that_are_not_finite(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_after(1, monkeypatch)
    with pytest.raises(RunFailedError, match="no checkpoint is written"):
        trainer(tmp_path, stopping_at(1), evaluations_per_epoch=1).run(phase(material, terms=labels_alone, teachers=False))
    assert not (tmp_path / "checkpoints" / "distill").exists()


def test_a_checkpoint_of_weights_that_are_not_finite_is_refused_with_the_way_out(material: Material, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        trainer(tmp_path, stopping_at(1)).run(phase(material, terms=labels_alone, teachers=False))
    folder = tmp_path / "checkpoints" / "distill"
    saved = checkpoint.load(folder)
    assert saved is not None
    next(iter(saved.objective.values()))[0] = float("nan")
    checkpoint.save(folder, saved)
    with pytest.raises(RunFailedError, match=r"remove the folder to start the phase again"):
        trainer(tmp_path).run(phase(material, terms=labels_alone, teachers=False))


class NotANumberWithoutGradient(Term):
    """A loss that nothing learns from, and that is no number."""

    name = "idle"

    def needs(self) -> dict[str, Wanted]:
        return {STUDENT: Wanted()}

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor([float(len(batch))])

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        return torch.tensor([float("nan")])


def test_a_loss_that_is_not_finite_stops_the_run_though_no_gradient_comes_from_it(material: Material, tmp_path: Path) -> None:
    made = phase(material, terms=lambda _: [HardLabelsTerm(), NotANumberWithoutGradient()], teachers=False)
    with pytest.raises(RunFailedError, match="the value of idle is not finite"):
        trainer(tmp_path).run(made)


def _scaled(folder: Path, scaler: torch.amp.GradScaler) -> Trainer:
    """A trainer with a loss scaler, as fp16 has it; here on the CPU."""
    made = trainer(folder)
    made.accelerator.scaler = scaler
    return made


def test_with_a_loss_scaler_a_single_overflow_is_left_out_of_training_and_of_the_logged_loss(
    material: Material, tmp_path: Path
) -> None:
    class OverflowsOnce(HardLabelsTerm):
        passes = 0

        def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
            self.passes += 1
            return super().forward(batch, outputs) * (float("inf") if self.passes == 2 else 1.0)

    told = Told()
    made = phase(material, terms=lambda _: [OverflowsOnce()], teachers=False)
    running = _scaled(tmp_path, torch.amp.GradScaler("cpu"))
    running.events.add(told)
    running.run(made)
    assert all(math.isfinite(value) for event in told.of(Logged) for value in event.values.values())
    assert running.accelerator.scaler.get_scale() == 65536.0 / 2


def test_with_a_loss_scaler_an_endless_row_of_overflows_is_a_failure(material: Material, tmp_path: Path) -> None:
    made = phase(material, [28], terms=lambda _: [FiniteValueWithoutGradient()], teachers=False)
    with pytest.raises(RunFailedError, match=r"not been finite for 25 steps, whatever the loss scale; it comes from square"):
        _scaled(tmp_path, torch.amp.GradScaler("cpu")).run(made)


@pytest.mark.parametrize("spoil", [_in_weights, _in_projections, _in_moments])
def test_with_a_loss_scaler_no_checkpoint_is_written_from_what_is_not_finite(
    spoil: Spoil, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_after(4, monkeypatch, spoil)
    with pytest.raises(RunFailedError, match="not finite"):
        _scaled(tmp_path, torch.amp.GradScaler("cpu")).run(phase(material, [4], terms=projected))
    saved = checkpoint.load(tmp_path / "checkpoints" / "distill")
    assert saved is not None
    assert saved.position.step < 4


def test_a_stage_does_not_move_on_because_its_loss_is_not_a_number(material: Material, tmp_path: Path) -> None:
    until = Until.model_validate({"loss": "idle", "below": 1e9, "window": 0.2})
    part = Part(6, lambda _: [HardLabelsTerm(), NotANumberWithoutGradient()], until=until)
    with pytest.raises(RunFailedError, match="not finite"):
        trainer(tmp_path).run(phase(material, [part, Part(2, labels_alone)], teachers=False))


def test_outputs_on_dev_that_are_not_finite_get_no_score(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_scoring, "predict", lambda *_, **__: {STUDENT: np.full((20, 2), np.nan, dtype=np.float32)})
    with pytest.raises(RunFailedError, match=r"step 2: the outputs of student are not finite for 20 of 20 dev samples"):
        trainer(tmp_path).run(phase(material, terms=labels_alone, teachers=False))
    assert not (tmp_path / "checkpoints" / "distill").exists()


def test_a_teacher_whose_outputs_are_not_finite_is_named_before_anything_is_kept(material: Material, tmp_path: Path) -> None:
    asked = copy.deepcopy(ensemble(material))
    broken = next(iter(asked.members()[1].model.parameters()))
    broken.data.fill_(float("nan"))
    samples = train_samples(material)
    wants = {name: Wanted() for name in WIDTHS}
    stores = stores_for(asked.members(), samples, wants, 2, tmp_path, 10**9, 1).by_teacher
    teaching = Teaching(asked, samples, wants, stores)
    batch = samples.batch(np.arange(4))
    with pytest.raises(RunFailedError, match=r"teacher roberta: its outputs are not finite for 4 of 4"):
        teaching(batch, wants)
    assert (len(stores["bert"]), len(stores["roberta"])) == (len({*map(tuple, _texts(samples, 4))}), 0)


def _texts(samples: Samples, count: int) -> list[list[int]]:
    view = samples.views["bert"]
    return [view.ids[view.bounds[row] : view.bounds[row + 1]].tolist() for row in range(count)]
