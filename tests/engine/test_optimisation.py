"""Which parameter is trained how fast, and when."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdcli.engine.objective import Objective
from kdcli.engine.optimisation import Schedule, make_optimizer, rate_factor
from tests.engine.phases import RATES, Material, all_terms, student

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


@pytest.fixture
def objective(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Objective:
    return Objective(student(Material(tiny_bert, tiny_roberta, tiny_data), 0), all_terms())


def treatment(objective: Objective) -> dict[str, tuple[float, float]]:
    """Parameter name → learning rate and decay."""
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in make_optimizer(objective, RATES, 0.3).param_groups
        for parameter in group["params"]
    }


def test_every_parameter_is_optimised_at_its_kinds_rate(objective: Objective) -> None:
    rates = {name: rate for name, (rate, _) in treatment(objective).items()}
    assert rates == {name: RATES[kind] for name, kind in objective.kinds().items()}
    assert set(rates.values()) == set(RATES.values())


def test_matrices_decay_and_biases_and_norms_do_not(objective: Objective) -> None:
    decays = {name: decay for name, (_, decay) in treatment(objective).items()}
    still = {name for name, decay in decays.items() if decay == 0.0}
    assert still == {name for name in decays if name.endswith(".bias") or "LayerNorm" in name}
    assert {decay for name, decay in decays.items() if name not in still} == {0.3}
    assert any("projections" in name for name in decays.keys() - still)


def test_frozen_parameters_are_left_out(objective: Objective) -> None:
    embeddings: nn.Module = objective.get_submodule("learner.model.bert.embeddings")
    embeddings.requires_grad_(False)
    assert not any("embeddings" in name for name in treatment(objective))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, *(0.5 + 0.5 * math.cos(math.pi * row / 4) for row in range(4))]),
    ],
)
def test_the_factor_of_each_schedule(schedule: Schedule, expected: list[float]) -> None:
    assert [rate_factor(step, 6, 1 / 3, schedule) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_peak_rate(schedule: Schedule) -> None:
    assert rate_factor(0, 5, 0.0, schedule) == 1.0


@given(steps=st.integers(1, 400), warmup=st.floats(0, 0.99), schedule=st.sampled_from(SCHEDULES))
def test_the_factor_rises_to_one_then_never_rises_and_is_never_zero(steps: int, warmup: float, schedule: Schedule) -> None:
    factors = [rate_factor(step, steps, warmup, schedule) for step in range(steps)]
    peak = factors.index(max(factors))
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) > 0
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert peak <= math.ceil(warmup * steps)
