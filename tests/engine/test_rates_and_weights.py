"""What changes over a stage: learning rates and the weights of terms; and what a stage sets for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcli.engine.events import Logged
from kdcli.engine.objective import ParameterKind
from kdcli.engine.optimisation import RateSchedule
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.schedule import Moment, value_at
from tests.engine.by_hand import CLIP, DECAY, Make, plainly_trained
from tests.engine.phases import (
    PAIRS,
    PER_EPOCH,
    RATES,
    WIDTHS,
    Material,
    Part,
    Terms,
    Told,
    changing,
    differing,
    labels_alone,
    phase,
    trainer,
    weights,
)


def rates(told: Told) -> list[float]:
    return [event.values["learning-rate"] for event in told.of(Logged)]


EXPECTED: Mapping[str, list[float]] = {
    "linear": [1.0, 0.8, 0.6, 0.4, 0.2],
    "cosine": [float(0.5 + 0.5 * np.cos(np.pi * row / 5)) for row in range(5)],
    "constant": [1.0] * 5,
}


@pytest.mark.parametrize("schedule", EXPECTED)
def test_the_rate_follows_the_schedule(schedule: RateSchedule, material: Material, tmp_path: Path) -> None:
    told = Told()
    made = phase(material, (5,), terms=labels_alone, teachers=False, warmup=0.0, schedule=schedule)
    trainer(tmp_path, told).run(made)
    assert [rate / RATES["body"] for rate in rates(told)] == pytest.approx(EXPECTED[schedule])


def test_each_stage_has_its_own_rate_warm_up_and_schedule(material: Material, tmp_path: Path) -> None:
    own: Mapping[ParameterKind, float] = {"body": 1e-4, "head": 1e-3, "projection": 1e-4}
    parts = [Part(4), Part(4, warmup=0.5), Part(4, schedule="linear"), Part(4, rates=own, warmup=0.0, schedule="cosine")]
    told = Told()
    made = phase(material, parts, terms=labels_alone, teachers=False, warmup=0.25, schedule="constant")
    trainer(tmp_path, told).run(made)
    factors = [1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 2 / 3, 1 / 3]
    cosine = [0.5 + 0.5 * np.cos(np.pi * row / 4) for row in range(4)]
    expected = [RATES["body"] * factor for factor in factors] + [1e-4 * factor for factor in cosine]
    assert rates(told) == pytest.approx(expected)


def changing_terms(bank: Projections) -> list[Term]:
    """Weights that fall by step and rise by epoch, and one that stays."""
    return [
        HardLabelsTerm(weight=changing(3.0, 0.5)),
        SoftLabelsTerm(list(PAIRS), weight=changing(0.0, 2.0, every="epoch")),
        HiddenMseTerm(PAIRS, 32, WIDTHS, bank, "teacher", weight=0.5),
    ]


def test_weights_of_terms_are_those_of_the_schedule_and_are_logged(material: Material, tmp_path: Path) -> None:
    """Two and a half epochs, the last one counted as a whole one."""
    steps, told = 2 * PER_EPOCH + PER_EPOCH // 2, Told()
    trainer(tmp_path, told).run(phase(material, (steps,), terms=changing_terms))
    logged = told.of(Logged)
    assert [event.values["hard-labels/weight"] for event in logged] == pytest.approx(np.linspace(3.0, 0.5, steps).tolist())
    by_epoch = [0.0] * PER_EPOCH + [1.0] * PER_EPOCH + [2.0] * (PER_EPOCH // 2)
    assert [event.values["soft-labels/weight"] for event in logged] == by_epoch
    moments = [Moment(step, steps, step // PER_EPOCH, 3) for step in range(steps)]
    assert by_epoch == [value_at(changing(0.0, 2.0, every="epoch"), moment) for moment in moments]
    assert not any("hidden-mse/weight" in event.values for event in logged)


def soft_labels_times(weight: float | Schedule) -> Terms:
    return lambda _: [HardLabelsTerm(), SoftLabelsTerm(list(PAIRS), weight=weight)]


def test_losses_are_logged_times_their_weights_and_their_sum_is_the_loss(material: Material, tmp_path: Path) -> None:
    """At the first step all runs have the same student."""
    given: dict[str, float | Schedule] = {"one": 1.0, "half": 0.5, "changing": changing(4.0, 1.0), "none": changing(0.0, 1.0)}
    first = {}
    for name, weight in given.items():
        told = Told()
        trainer(tmp_path / name, told).run(phase(material, (2,), terms=soft_labels_times(weight)))
        first[name] = told.of(Logged)[0].values
        assert first[name]["loss"] == pytest.approx(first[name]["loss/soft-labels"] + first[name]["loss/hard-labels"])
        assert first[name]["loss/hard-labels"] == pytest.approx(first["one"]["loss/hard-labels"])
    unweighted = first["one"]["loss/soft-labels"]
    assert unweighted > 0.1
    found = {name: values["loss/soft-labels"] for name, values in first.items()}
    assert found == pytest.approx({"one": unweighted, "half": 0.5 * unweighted, "changing": 4 * unweighted, "none": 0.0})


def steeply_changing(bank: Projections) -> list[Term]:
    """Weights that change by much in six steps."""
    return [
        HardLabelsTerm(weight=changing(3.0, 0.5)),
        SoftLabelsTerm(list(PAIRS), weight=changing(0.1, 10.0, shape="exponential")),
        HiddenMseTerm(PAIRS, 32, WIDTHS, bank, "teacher", weight=0.5),
    ]


def test_weights_that_change_train_as_by_hand(material: Material, tmp_path: Path) -> None:
    """Losses, gradient norms and the weights of the student of a plain loop in which each step has its own weights."""
    by_hand: Mapping[str, Callable[[int], float]] = {
        "hard-labels": lambda step: 3.0 - 0.5 * step,
        "soft-labels": lambda step: float(0.1 * 100 ** (step / 5)),
    }
    ours, plain = (phase(material, (6,), terms=steeply_changing, warmup=0.3) for _ in range(2))
    told = Told()
    trainer(tmp_path, told, clip_norm=CLIP, weight_decay=DECAY, evaluations_per_epoch=1).run(ours)
    losses, norms = plainly_trained(plain, weigh=by_hand)
    assert [event.values["loss"] for event in told.of(Logged)] == pytest.approx(losses, rel=1e-4)
    assert [event.values["gradient-norm"] for event in told.of(Logged)] == pytest.approx(norms, rel=1e-4)
    assert differing(weights(ours), weights(plain), 1e-6) == []


OPTIMIZERS: Mapping[str, Make] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.8, 0.99), eps=1e-6),
    "adafactor": torch.optim.Adafactor,
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.8),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_trains_as_by_hand(name: str, material: Material, tmp_path: Path) -> None:
    steep: Mapping[ParameterKind, float] = {"body": 0.01, "head": 0.05, "projection": 0.02}
    ours, plain = (phase(material, [Part(6, rates=steep)], warmup=0.3) for _ in range(2))
    about: dict[str, Any] = {"name": name, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}
    told = Told()
    running = trainer(tmp_path, told, optimizer=about, clip_norm=CLIP, weight_decay=DECAY, evaluations_per_epoch=1)
    running.run(ours)
    losses, _ = plainly_trained(plain, make=OPTIMIZERS[name], rates=steep)
    assert [event.values["loss"] for event in told.of(Logged)] == pytest.approx(losses, rel=1e-4)
    assert differing(weights(ours), weights(plain), 1e-5) == []
    assert losses[-1] < losses[0]
