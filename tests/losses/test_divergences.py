"""Distances between class distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdcli.losses.divergences import DIVERGENCES
from tests.losses import reference

quick = settings(deadline=None, database=None, max_examples=60)
every_divergence = pytest.mark.parametrize("name", DIVERGENCES)
zero_at_the_teacher = pytest.mark.parametrize("name", sorted(set(DIVERGENCES) - {"cross-entropy"}))
logits = st.lists(st.floats(-12, 12, width=32), min_size=3, max_size=3)


def between(name: str, student: list[float], teacher: list[float]) -> float:
    ours, theirs = (torch.tensor([side], dtype=torch.float64).log_softmax(-1) for side in (student, teacher))
    return DIVERGENCES[name](ours, theirs).item()


@every_divergence
@pytest.mark.parametrize("classes", [2, 3, 17])
def test_each_sample_s_value_equals_numpy(name: str, classes: int) -> None:
    student, teacher = np.random.default_rng(classes).normal(size=(2, 6, classes)) * 3
    found = DIVERGENCES[name](*(torch.tensor(side, dtype=torch.float32).log_softmax(-1) for side in (student, teacher)))
    expected = [
        reference.divergence(name, reference.softmax(p), reference.softmax(q)) for q, p in zip(student, teacher, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


@zero_at_the_teacher
@quick
@given(student=logits, teacher=logits)
def test_none_is_negative_and_all_are_zero_between_equals(name: str, student: list[float], teacher: list[float]) -> None:
    assert between(name, student, teacher) >= -1e-12
    assert between(name, teacher, teacher) == pytest.approx(0.0, abs=1e-12)


@quick
@given(student=logits, teacher=logits)
def test_bounds_and_symmetries(student: list[float], teacher: list[float]) -> None:
    assert between("js", student, teacher) <= math.log(2) + 1e-12
    assert between("tv", student, teacher) <= 1 + 1e-12
    for name in ("js", "tv"):
        assert between(name, student, teacher) == pytest.approx(between(name, teacher, student), abs=1e-12)
    assert between("reverse-kl", student, teacher) == between("kl", teacher, student)
    entropy = between("cross-entropy", teacher, teacher)
    assert between("cross-entropy", student, teacher) == pytest.approx(between("kl", student, teacher) + entropy, abs=1e-9)
    assert between("tv", student, teacher) ** 2 <= between("kl", student, teacher) / 2 + 1e-12  # Pinsker


@pytest.mark.parametrize(("name", "expected"), [("js", math.log(2)), ("tv", 1.0)])
def test_certain_and_contrary_answers_are_as_far_apart_as_can_be(name: str, expected: float) -> None:
    assert between(name, [60.0, 0.0, 0.0], [0.0, 60.0, 0.0]) == pytest.approx(expected)


EXTREMES = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, 1e4]]


@every_divergence
def test_value_and_gradient_stay_finite_for_extreme_logits(name: str) -> None:
    def of(rows: list[list[float]]) -> Tensor:
        return torch.tensor(rows).log_softmax(-1)

    student = torch.tensor([row for row in EXTREMES for _ in EXTREMES], requires_grad=True)
    found = DIVERGENCES[name](student.log_softmax(-1), of(EXTREMES * len(EXTREMES)))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(found).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
