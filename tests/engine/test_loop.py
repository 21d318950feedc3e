"""The training loop: what it computes, that it can be repeated, what it keeps, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.engine.events import CheckpointWritten, Evaluated, Event, Logged, Note, PhaseDone, PhaseStarted, StepDone
from kdcli.engine.inference import predict
from kdcli.engine.objective import ParameterKind
from kdcli.engine.stages import Scores
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Outputs
from kdcli.models.student import STUDENT
from tests.engine.by_hand import CLIP, DECAY, plainly_trained
from tests.engine.phases import (
    PER_EPOCH,
    RATES,
    Material,
    Part,
    Told,
    checkpoint_weights,
    dev_scores,
    differing,
    ensemble,
    labels_alone,
    phase,
    trainer,
    weights,
)


def test_the_loop_equals_a_plain_training_loop(material: Material, tmp_path: Path) -> None:
    """Losses, gradient norms (projections included), clipping, decay, the three rates and their schedule."""
    ours, told = phase(material, warmup=0.3), Told()
    plain, unclipped = phase(material), phase(material)
    trainer(tmp_path, told, clip_norm=CLIP, weight_decay=DECAY).run(ours)
    losses, norms = plainly_trained(plain)
    last = {name: tensor for name, tensor in checkpoint_weights(tmp_path).items() if name.startswith("learner.")}
    expected = {f"learner.{name}": tensor for name, tensor in plain.learner.state_dict().items()}
    assert differing(last, expected, 1e-6) == []
    projections = {name: tensor for name, tensor in weights(plain).items() if name.startswith("projections.")}
    assert len(projections) == 4
    assert differing(projections, {name: weights(ours)[name] for name in projections}, 1e-6) == []
    logged = told.of(Logged)
    assert [event.values["loss"] for event in logged] == pytest.approx(losses, rel=1e-4)
    assert [event.values["gradient-norm"] for event in logged] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > CLIP
    plainly_trained(unclipped, clip=1e9)
    assert len(differing(weights(unclipped), weights(plain), 1e-5)) > 10


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(material: Material, tmp_path: Path) -> None:
    found = []
    for row, seed in enumerate((1, 1, 2)):
        trained = phase(material, seed=seed, dropout=0.1)
        torch.manual_seed(100 + row)
        trainer(tmp_path / str(row)).run(trained)
        found.append(weights(trained))
    assert differing(found[0], found[1]) == []
    assert len(differing(found[0], found[2])) > len(found[0]) / 2


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
    trainer(tmp_path, told).run(phase(material, (4,), warmup=0.5))
    for event in told.of(Logged):
        terms = [event.values[f"loss/{name}"] for name in ("hard-labels", "soft-labels", "hidden-mse")]
        assert min(terms) > 0
        assert event.values["loss"] == pytest.approx(sum(terms), rel=1e-5)
        assert event.values["gradient-norm"] > 0
        assert {"soft-labels/weight-mean/bert", "hidden-mse/projected-std/roberta-2"} <= event.values.keys()
    assert [event.values["learning-rate"] for event in told.of(Logged)] == pytest.approx([2.5e-4, 5e-4, 5e-4, 2.5e-4])


def test_a_long_stage_is_logged_fifty_times_with_the_mean_since_the_last_time(material: Material, tmp_path: Path) -> None:
    """A hundred steps, at rates at which nothing moves: the losses of an epoch, two by two."""
    still: Mapping[ParameterKind, float] = dict.fromkeys(RATES, 1e-12)
    logged = []
    for name, steps in {"short": PER_EPOCH, "long": 100}.items():
        told = Told()
        made = phase(material, [Part(steps, labels_alone, still)], teachers=False, warmup=0.0)
        trainer(tmp_path / name, told, evaluations_per_epoch=1).run(made)
        logged.append(told.of(Logged))
    short, long = logged
    assert [event.step for event in long] == list(range(2, 101, 2))
    losses = [event.values["loss"] for event in short]
    assert [event.values["loss"] for event in long[:3]] == pytest.approx([np.mean(losses[row : row + 2]) for row in (0, 2, 4)])


class Talkative(HardLabelsTerm):
    """Has something to say of everything that it observes: by turns one of two things."""

    said = 0

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        self.observed["figure"] = torch.ones(())
        return super().forward(batch, outputs)

    def remark(self, observed: Mapping[str, float]) -> str:
        self.said += 1
        return f"{self.name} is {'odd' if self.said % 2 else 'even'} and {observed['figure']:g}"


def test_each_remark_of_a_term_is_told_once_as_a_warning(material: Material, tmp_path: Path) -> None:
    told = Told()
    terms = [Talkative(name="one"), Talkative(name="two")]
    trainer(tmp_path, told).run(phase(material, (6,), terms=lambda _: [*terms], teachers=False))
    assert [term.said for term in terms] == [6, 6]
    said = ["one is odd and 1", "two is odd and 1", "one is even and 1", "two is even and 1"]
    assert told.of(Note) == [Note(text, warning=True) for text in said]


def test_a_weighting_that_says_nothing_is_told_once(material: Material, tmp_path: Path) -> None:
    """A teacher that is alone agrees with itself everywhere."""
    told = Told()
    made = phase(material, (8,), terms=lambda _: [SoftLabelsTerm(["bert"], weighting="agreement")])
    trainer(tmp_path, told).run(made)
    (note,) = told.of(Note)
    assert note.warning
    assert "soft-labels: weighting by agreement says nothing here" in note.text


def test_the_dev_scores_are_those_of_the_student_in_evaluation_mode(material: Material, tmp_path: Path) -> None:
    trained, told = phase(material, (2,), dropout=0.5), Told()
    trainer(tmp_path, told).run(trained)
    logits = predict(trained.learner.eval(), trained.dev, 3, torch.device("cpu"))
    assert told.of(Evaluated)[0].scores == {"student": dev_scores(material)(logits)[STUDENT]}


def test_after_an_evaluation_dropout_acts_again(material: Material, tmp_path: Path) -> None:
    trained, modes = phase(material, (4,), dropout=0.1), []

    def look(event: Event) -> None:
        if isinstance(event, StepDone):
            modes.append(all(part.training for part in trained.learner.modules()))

    trainer(tmp_path, Told(look), evaluations_per_epoch=6).run(trained)
    assert modes == [True] * 4


@pytest.mark.parametrize(("often", "epochs"), [(0.5, [2, 4]), (1, [1, 2, 3, 4]), (2, [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4])])
def test_dev_is_scored_as_often_as_asked_for_and_at_the_end(
    often: float, epochs: list[float], material: Material, tmp_path: Path
) -> None:
    told = Told()
    made = phase(material, (24,), terms=labels_alone, teachers=False)  # 48 rows in batches of 8: 6 steps an epoch
    trainer(tmp_path, told, evaluations_per_epoch=often).run(made)
    assert [event.epoch for event in told.of(Evaluated)] == epochs


def test_every_sample_is_seen_once_per_epoch_though_the_last_batch_is_small(material: Material, tmp_path: Path) -> None:
    told = Told()
    trainer(tmp_path, told, batch_size=10).run(phase(material, (10,), terms=labels_alone, teachers=False))
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
