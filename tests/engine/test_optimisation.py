"""Which parameter is trained how fast, and when."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdcli.engine.objective import Objective
from kdcli.engine.optimisation import RateSchedule, make_optimizer, rate_factor
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.projection import Projections
from kdcli.models.head import SharedHead
from kdcli.models.teachers import CofinetunedTeachers
from kdcli.models.weight_loading import load_encoder
from tests.engine.phases import RATES, Material, all_terms, settings, student

SCHEDULES: tuple[RateSchedule, ...] = get_args(RateSchedule)


@pytest.fixture
def objective(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Objective:
    bank = Projections()
    return Objective(student(Material(tiny_bert, tiny_roberta, tiny_data), 0), all_terms(bank), bank)


def treatment(objective: Objective, **changes: Any) -> dict[str, tuple[float, float]]:
    """Parameter name → learning rate and decay."""
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in make_optimizer(objective, RATES, settings(weight_decay=0.3, **changes)).param_groups
        for parameter in group["params"]
    }


def test_every_parameter_is_optimised_at_its_kinds_rate(objective: Objective) -> None:
    rates = {name: rate for name, (rate, _) in treatment(objective).items()}
    assert rates == {name: RATES[kind] for name, kind in objective.kinds().items()}
    assert set(rates.values()) == set(RATES.values())


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_matrices_decay_and_biases_and_norms_do_not(optimizer: str, decay: float, objective: Objective) -> None:
    decays = {
        name: found for name, (_, found) in treatment(objective, layer_decay=decay, optimizer={"name": optimizer}).items()
    }
    still = {name for name, found in decays.items() if found == 0.0}
    assert still == {name for name in decays if name.endswith(".bias") or "LayerNorm" in name}
    assert {found for name, found in decays.items() if name not in still} == {0.3}
    assert any(name.startswith("projections.") for name in decays.keys() - still)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
@pytest.mark.parametrize("decay", [0.9, 0.25])
def test_each_layer_below_the_top_takes_a_rate_smaller_by_the_decay(optimizer: str, decay: float, objective: Objective) -> None:
    """The student has two layers; the head and the projections are not below anything."""
    below = {"bert.embeddings": 2, "encoder.layer.0": 1, "encoder.layer.1": 0, "pooler": 0}
    rates = {name: rate for name, (rate, _) in treatment(objective, layer_decay=decay, optimizer={"name": optimizer}).items()}
    expected = {
        name: RATES["projection"]
        if name.startswith("projections.")
        else RATES["head"]
        if "classifier" in name
        else RATES["body"] * decay ** next(count for part, count in below.items() if part in name)
        for name, _ in objective.named_parameters()
    }
    assert rates == pytest.approx(expected)
    assert len(set(rates.values())) == 5


def test_without_layer_decay_each_kind_is_two_groups_with_decay_and_without(objective: Objective) -> None:
    groups = make_optimizer(objective, RATES, settings(weight_decay=0.3)).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (RATES["body"], 0.0),
        (RATES["body"], 0.3),
        (RATES["head"], 0.0),
        (RATES["head"], 0.3),
        (RATES["projection"], 0.3),
    ]


def test_of_several_models_each_may_have_a_rate_of_its_own_for_its_body(tiny_bert: Path, tiny_roberta: Path) -> None:
    encoders = {"bert": load_encoder(tiny_bert), "roberta": load_encoder(tiny_roberta)}
    learner = CofinetunedTeachers(encoders, SharedHead({"bert": 32, "roberta": 48}, 3, "attention"))
    objective = Objective(learner, [HardLabelsTerm(list(encoders))], Projections())
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    rates = {
        names[id(parameter)]: group["lr"]
        for group in make_optimizer(objective, RATES, settings(), {"roberta": 7e-5}).param_groups
        for parameter in group["params"]
    }
    assert rates.keys() == set(names.values())
    for name, rate in rates.items():
        part = "bert" if ".bert." in name.split("encoders")[-1][:6] else "roberta"
        assert rate == (RATES["head"] if ".head." in name else RATES["body"] if part == "bert" else 7e-5), name


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_frozen_parameters_are_left_out(decay: float, objective: Objective) -> None:
    objective.freeze(["embeddings", 2])
    found = treatment(objective, layer_decay=decay)
    assert not any("embeddings" in name or "layer.1" in name for name in found)
    assert len(found) == sum(parameter.requires_grad for parameter in objective.parameters())


def test_the_optimisers_constants_are_those_of_the_recipe(objective: Objective) -> None:
    constants = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}
    adamw, sgd, adafactor = (
        make_optimizer(objective, RATES, settings(optimizer={"name": name, **constants}))
        for name in ("adamw", "sgd", "adafactor")
    )
    assert isinstance(adamw, torch.optim.AdamW)
    assert {(group["betas"], group["eps"]) for group in adamw.param_groups} == {((0.8, 0.95), 1e-6)}
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.8}
    assert isinstance(adafactor, torch.optim.Adafactor)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, *(0.5 + 0.5 * math.cos(math.pi * row / 4) for row in range(4))]),
    ],
)
def test_the_factor_of_each_schedule(schedule: RateSchedule, expected: list[float]) -> None:
    assert [rate_factor(step, 6, 1 / 3, schedule) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_peak_rate(schedule: RateSchedule) -> None:
    assert rate_factor(0, 5, 0.0, schedule) == 1.0


@given(steps=st.integers(1, 400), warmup=st.floats(0, 0.99), schedule=st.sampled_from(SCHEDULES))
def test_the_factor_rises_to_one_then_never_rises_and_is_never_zero(steps: int, warmup: float, schedule: RateSchedule) -> None:
    factors = [rate_factor(step, steps, warmup, schedule) for step in range(steps)]
    peak = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) > 0
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert peak <= math.ceil(warmup * steps)
