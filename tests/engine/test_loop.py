"""The training loop: what it computes, that it can be cut, repeated and resumed, and what it tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdcli.data.batching import Batch, epoch_batches
from kdcli.engine import checkpoint
from kdcli.engine.events import (
    CheckpointWritten,
    Evaluated,
    Event,
    Logged,
    Note,
    PhaseDone,
    PhaseStarted,
    StepDone,
)
from kdcli.engine.inference import predict
from kdcli.engine.loop import Phase, Scores
from kdcli.errors import InterruptedRunError, RunFailedError
from kdcli.losses.labels import HardLabelsTerm
from kdcli.losses.term import Outputs, Term
from kdcli.models.student import STUDENT
from tests.engine.phases import (
    RATES,
    Material,
    Told,
    all_terms,
    dev_scores,
    differing,
    ensemble,
    phase,
    settings,
    trainer,
    weights,
)
from tests.engine.two_processes import CASES, STEPS


@pytest.fixture(scope="module")
def material(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Material:
    return Material(tiny_bert, tiny_roberta, tiny_data)


def stopping_at(step: int, times: int = 1) -> Told:
    """A listener that interrupts the run when a step is done."""

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return Told(interrupt)


def rate_of(name: str) -> float:
    if name.startswith("projection"):
        return RATES["projection"]
    return RATES["head" if "classifier" in name else "body"]


def plainly_trained(trained: Phase, clip: float, warmup_steps: int) -> tuple[list[float], list[float]]:
    """Train the phase's only stage as one would by hand; returns losses and gradient norms."""
    stage, train = trained.stages[0], trained.train
    learner = trained.learner.train()
    parameters: dict[str, nn.Parameter] = dict(learner.named_parameters())
    for term in stage.terms:
        parameters |= {f"projection {name}": parameter for name, parameter in term.named_parameters()}
    kind = {
        name: "projection" if name.startswith("projection") else "head" if "classifier" in name else "body"
        for name in parameters
    }
    groups = [
        {"params": [parameter], "lr": RATES[kind[name]], "weight_decay": 0.1 if parameter.ndim > 1 else 0.0}  # type: ignore[index]
        for name, parameter in parameters.items()
    ]
    optimizer = torch.optim.AdamW(groups)
    peaks = [group["lr"] for group in optimizer.param_groups]
    batches = epoch_batches(train.lengths, settings().batch_size, trained.seed, 0)
    losses, norms = [], []
    for step in range(stage.steps):
        batch = train.batch(batches[step])
        assert trained.ensemble is not None
        outputs = {**trained.ensemble(batch), **learner(batch)}
        loss = sum((term.weight * (term(batch, outputs) / term.count(batch)).sum() for term in stage.terms), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), clip)))
        losses.append(loss.item())
        rising = (step + 1) / warmup_steps
        falling = 1 - (step - warmup_steps) / (stage.steps - warmup_steps)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * (rising if step < warmup_steps else falling)
        optimizer.step()
    return losses, norms


def test_the_loop_equals_a_plain_training_loop(material: Material, tmp_path: Path) -> None:
    """Losses, gradient norms (projections included), clipping, decay, the three rates and their schedule."""
    ours, plain, unclipped, told = phase(material), phase(material), phase(material), Told()
    trainer(tmp_path, told, clip_norm=0.5, weight_decay=0.1, warmup=0.3).run(ours)
    losses, norms = plainly_trained(plain, clip=0.5, warmup_steps=2)
    last = {name: tensor for name, tensor in checkpoint_weights(tmp_path).items() if name.startswith("learner.")}
    expected = {f"learner.{name}": tensor for name, tensor in plain.learner.state_dict().items()}
    assert differing(last, expected, 1e-6) == []
    projections = {name: tensor for name, tensor in weights(plain).items() if "projections" in name}
    assert len(projections) == 4
    assert differing(projections, {name: weights(ours)[name] for name in projections}, 1e-6) == []
    logged = told.of(Logged)
    assert [event.values["loss"] for event in logged] == pytest.approx(losses, rel=1e-4)
    assert [event.values["gradient-norm"] for event in logged] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > 0.5
    plainly_trained(unclipped, clip=1e9, warmup_steps=2)
    assert len(differing(weights(unclipped), weights(plain), 1e-5)) > 10


def checkpoint_weights(folder: Path) -> dict[str, Tensor]:
    """What the checkpoint of the last step holds."""
    state = checkpoint.load(folder / "checkpoints" / "distill")
    assert state is not None
    return state.objective


@pytest.mark.parametrize("accumulation", [2, 3, 8])
def test_one_batch_of_eight_equals_its_parts(accumulation: int, material: Material, tmp_path: Path) -> None:
    whole, cut, start = phase(material), phase(material), weights(phase(material))
    trainer(tmp_path / "whole").run(whole)
    trainer(tmp_path / "cut", accumulation=accumulation).run(cut)
    assert differing(weights(whole), weights(cut), 1e-5) == []
    assert len(differing(weights(whole), start, 1e-4)) > len(start) / 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(material: Material, tmp_path: Path) -> None:
    found = []
    for row, seed in enumerate((1, 1, 2)):
        trained = phase(material, seed=seed, dropout=0.1)
        torch.manual_seed(100 + row)
        trainer(tmp_path / str(row)).run(trained)
        found.append(weights(trained))
    assert differing(found[0], found[1]) == []
    assert len(differing(found[0], found[2])) > len(found[0]) / 2


@pytest.fixture(scope="module")
def uninterrupted(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[Event]]:
    """Weights and events of a run of two stages with dropout that nobody stopped."""
    trained, told = phase(material, (5, 6), dropout=0.1), Told()
    trainer(tmp_path_factory.mktemp("uninterrupted"), told).run(trained)
    return weights(trained), told.events


@pytest.mark.parametrize("step", [1, 4, 5, 6, 8, 11])
def test_resumed_run_equals_uninterrupted_run(
    step: int, uninterrupted: tuple[dict[str, Tensor], list[Event]], material: Material, tmp_path: Path
) -> None:
    """Stopped between and at evaluations, at the end of a stage and at the very end."""
    told, first = stopping_at(step), phase(material, (5, 6), dropout=0.1)
    with pytest.raises(InterruptedRunError, match=f"step {step} of 11"):
        trainer(tmp_path, told).run(first)
    assert any(isinstance(event, Note) and event.warning for event in told.events)
    assert told.of(StepDone)[-1].step == step
    torch.manual_seed(12345)
    resumed, after = phase(material, (5, 6), dropout=0.1), Told()
    trainer(tmp_path, after).run(resumed)
    expected, events = uninterrupted
    trained = {name: tensor for name, tensor in weights(resumed).items() if name.startswith(("model.", "1."))}
    assert differing(trained, {name: expected[name] for name in trained}) == []
    assert after.of(PhaseStarted)[0].step == step
    for kind in (StepDone, Logged, Evaluated, PhaseDone):
        whole, rest = [event for event in events if isinstance(event, kind)], after.of(kind)
        assert rest == whole[len(whole) - len(rest) :]
    assert [event.step for event in after.of(StepDone)] == list(range(step + 1, 12))


def test_a_run_that_was_ended_at_once_goes_on_from_its_last_checkpoint(
    uninterrupted: tuple[dict[str, Tensor], list[Event]], material: Material, tmp_path: Path
) -> None:
    told = stopping_at(3, times=2)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, told).run(phase(material, (5, 6), dropout=0.1))
    assert told.of(CheckpointWritten)[-1].step == 2
    resumed, after = phase(material, (5, 6), dropout=0.1), Told()
    trainer(tmp_path, after).run(resumed)
    assert after.of(PhaseStarted)[0].step == 2
    assert differing(weights(resumed), uninterrupted[0]) == []


@pytest.mark.parametrize("step", range(1, 8))
def test_the_state_is_saved_at_whatever_step_the_stop_comes(step: int, material: Material, tmp_path: Path) -> None:
    running = trainer(tmp_path, stopping_at(step), evaluations_per_epoch=1)
    with pytest.raises(InterruptedRunError, match="the state is saved"):
        running.run(phase(material, (7,), teachers=False, terms=lambda: [HardLabelsTerm()]))
    state = checkpoint.load(tmp_path / "checkpoints" / "distill")
    assert state is not None
    assert state.position.step == step


def test_a_finished_phase_is_not_trained_again(material: Material, tmp_path: Path) -> None:
    first, again, told = phase(material), phase(material), Told()
    score = trainer(tmp_path).run(first)
    assert trainer(tmp_path, told).run(again) == score
    assert told.of(StepDone) == []
    assert differing(weights(first), weights(again)) == []


def test_the_weights_of_the_best_evaluation_of_the_last_stage_are_in_the_learner_at_the_end(
    material: Material, tmp_path: Path
) -> None:
    """The first stage scores highest, but its weights are not those of a finished student."""
    trained = phase(material, (4, 6))
    given = iter([0.99, 0.98, 0.3, 0.7, 0.5])
    trained.score = lambda logits: {STUDENT: {"accuracy": next(given)}}
    at: dict[int, dict[str, Tensor]] = {}

    def remember(event: Event) -> None:
        if isinstance(event, Evaluated):
            at[event.step] = {name: tensor.clone() for name, tensor in trained.learner.state_dict().items()}

    told = Told(remember)
    assert trainer(tmp_path, told).run(trained) == 0.7
    assert [(event.step, event.best) for event in told.of(Evaluated)] == [
        (2, False),
        (4, False),
        (6, True),
        (8, True),
        (10, False),
    ]
    assert differing(trained.learner.state_dict(), at[8]) == []
    assert differing(at[10], at[8]) != []


def test_the_score_is_the_mean_over_the_models_that_learn(material: Material, tmp_path: Path) -> None:
    trained = phase(material, (2,))
    trained.score = lambda logits: {"one": {"accuracy": 0.2, "f1": 1.0}, "two": {"accuracy": 0.6, "f1": 1.0}}
    assert trainer(tmp_path).run(trained) == pytest.approx(0.4)


def test_events_come_in_order(material: Material, tmp_path: Path) -> None:
    told = Told()
    score = trainer(tmp_path, told).run(phase(material, (2, 3)))
    step, evaluation = [StepDone, Logged], [Evaluated, CheckpointWritten]
    kinds = [type(event) for event in told.events]
    first, second = [*step, *step, *evaluation], [*step, *step, *evaluation, *step, *evaluation]
    assert kinds == [PhaseStarted, *first, *second, PhaseDone]
    assert told.events[0] == PhaseStarted("distill", "distilling", 0, 5)
    assert told.events[-1] == PhaseDone("distill", score)
    assert [(event.step, event.steps, event.stage) for event in told.of(StepDone)] == [
        (row, 5, "stage-0" if row <= 2 else "stage-1") for row in range(1, 6)
    ]
    assert [event.step for event in told.of(CheckpointWritten)] == [2, 4, 5]
    assert [event.epoch for event in told.of(Logged)] == pytest.approx([1 / 6, 2 / 6, 1 / 6, 2 / 6, 3 / 6])


def test_logged_values_hold_every_term_their_sum_and_what_they_observed(material: Material, tmp_path: Path) -> None:
    told = Told()
    trainer(tmp_path, told, warmup=0.5).run(phase(material, (4,)))
    for event in told.of(Logged):
        terms = [event.values[f"loss/{name}"] for name in ("hard-labels", "soft-labels", "hidden-mse")]
        assert min(terms) > 0
        assert event.values["loss"] == pytest.approx(sum(terms), rel=1e-5)
        assert event.values["gradient-norm"] > 0
        assert {"soft-labels/weight-mean/bert", "hidden-mse/projected-std/roberta-2"} <= event.values.keys()
    assert [event.values["learning-rate"] for event in told.of(Logged)] == pytest.approx([2.5e-4, 5e-4, 5e-4, 2.5e-4])


def test_the_dev_scores_are_those_of_the_student_in_evaluation_mode(material: Material, tmp_path: Path) -> None:
    trained, told = phase(material, (2,), dropout=0.5), Told()
    trainer(tmp_path, told).run(trained)
    logits = predict(trained.learner.eval(), trained.dev, 3, torch.device("cpu"))
    assert told.of(Evaluated)[0].scores == dev_scores(material)(logits)


def test_after_an_evaluation_dropout_acts_again(material: Material, tmp_path: Path) -> None:
    trained, modes = phase(material, (4,), dropout=0.1), []

    def look(event: Event) -> None:
        if isinstance(event, StepDone):
            modes.append(all(part.training for part in trained.learner.modules()))

    trainer(tmp_path, Told(look), evaluations_per_epoch=6).run(trained)
    assert modes == [True] * 4


def test_every_sample_is_seen_once_per_epoch_though_the_last_batch_is_small(material: Material, tmp_path: Path) -> None:
    told = Told()
    trainer(tmp_path, told, batch_size=10).run(phase(material, (10,), terms=lambda: [HardLabelsTerm()], teachers=False))
    samples = [event.samples for event in told.of(StepDone)]
    assert sum(samples[:5]) == sum(samples[5:]) == 48
    assert sorted(samples[:5]) == [8, 10, 10, 10, 10]


def test_training_leaves_the_teachers_as_they_were(material: Material, tmp_path: Path) -> None:
    teachers = ensemble(material)
    before = {name: tensor.clone() for name, tensor in teachers.state_dict().items()}
    trainer(tmp_path).run(phase(material))
    assert differing(teachers.state_dict(), before) == []
    assert all(parameter.grad is None for parameter in teachers.parameters())
    assert not any(part.training for teacher in teachers.teachers.values() for part in teacher.modules())


class FiniteValueWithoutGradient(Term):
    """√0: the value is 0, the slope infinite."""

    name = "square-root"

    def count(self, batch: Batch) -> Tensor:
        return torch.tensor([float(len(batch))])

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        logits = outputs[STUDENT].logits
        return (logits - logits.detach()).square().sum().sqrt()[None]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_gradient_that_is_not_finite_is_blamed_on_its_term_alone(
    accumulation: int, material: Material, tmp_path: Path
) -> None:
    trained = phase(material, terms=lambda: [HardLabelsTerm(), FiniteValueWithoutGradient(), *all_terms()[1:]])
    with pytest.raises(RunFailedError) as failure:
        trainer(tmp_path, accumulation=accumulation).run(trained)
    assert "distill, step 1: the gradient is not finite; it comes from square-root." in str(failure.value)


def test_after_a_gradient_that_is_not_finite_the_weights_are_untouched(material: Material, tmp_path: Path) -> None:
    trained = phase(material, terms=lambda: [FiniteValueWithoutGradient()])
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
    made: Iterator[list[Term]] = iter([[HardLabelsTerm()], [ExplodesAtStep()]])
    with pytest.raises(RunFailedError, match="step 7"):
        trainer(tmp_path).run(phase(material, (4, 4), terms=lambda: next(made), teachers=False))


def test_projections_are_trained_and_not_part_of_the_learner(material: Material, tmp_path: Path) -> None:
    trained, start = phase(material), weights(phase(material))
    trainer(tmp_path).run(trained)
    projections = [name for name in start if "projections" in name]
    moved = differing(weights(trained), start, 1e-4)
    assert len(projections) == 4
    assert set(projections) <= set(moved)
    assert not any("projection" in name for name in trained.learner.state_dict())
    assert sum("projections" in name for name in checkpoint_weights(tmp_path)) == 4


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_follows_the_schedule(schedule: str, material: Material, tmp_path: Path) -> None:
    told = Told()
    trained = phase(material, (5,), terms=lambda: [HardLabelsTerm()], teachers=False)
    trainer(tmp_path, told, schedule=schedule, warmup=0.0).run(trained)
    rates = [event.values["learning-rate"] / RATES["body"] for event in told.of(Logged)]
    expected: Mapping[str, list[float]] = {
        "linear": [1.0, 0.8, 0.6, 0.4, 0.2],
        "cosine": [float(0.5 + 0.5 * np.cos(np.pi * row / 5)) for row in range(5)],
        "constant": [1.0] * 5,
    }
    assert rates == pytest.approx(expected[schedule])
    assert all(one >= other for one, other in pairwise(rates))


def test_two_processes_equal_one(material: Material, tmp_path: Path) -> None:
    """Two processes of half the batch each, with accumulation, uneven shares, and a batch smaller than the processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [material.bert, material.roberta, material.data, tmp_path]
    done = subprocess.run(
        [*launch, "--module", "tests.engine.two_processes", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, case in CASES.items():
        alone = phase(material, (STEPS,))
        score = trainer(tmp_path / f"{name}-alone", batch_size=case["batch_size"]).run(alone)
        together = torch.load(tmp_path / f"{name}.pt")
        assert together["score"] == score
        assert differing(together["weights"], weights(alone), 1e-5) == []


def test_scores_are_asked_for_with_every_dev_sample_in_order(material: Material, tmp_path: Path) -> None:
    trained = phase(material, (1,))
    seen: list[NDArray[np.float32]] = []

    def score(logits: Mapping[str, NDArray[np.float32]]) -> Scores:
        seen.append(logits[STUDENT])
        return {STUDENT: {"accuracy": 0.5}}

    trained.score = score
    trainer(tmp_path).run(trained)
    expected = predict(trained.learner.eval(), trained.dev, 1, torch.device("cpu"))[STUDENT]
    np.testing.assert_allclose(seen[0], expected, atol=1e-5)
