"""Hard and soft labels against a few lines of numpy in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from kdcli.errors import RequestError
from kdcli.losses.labels import HardLabelsTerm, SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.output import Output
from kdcli.models.student import STUDENT
from tests.losses.random_samples import CLASSES, TEACHERS, Array, RandomSamples, value, value_of_parts

Weighting = Literal["inverse-error", "uniform"]
SOFT = [(1.0, False, "inverse-error"), (1.0, False, "uniform"), (2.5, False, "inverse-error"), (4.0, True, "uniform")]
MAKERS: dict[str, Callable[[], Term]] = {
    "hard": HardLabelsTerm,
    "soft": lambda: SoftLabelsTerm(TEACHERS),
    "soft-warm": lambda: SoftLabelsTerm(TEACHERS, 3.0, True, "uniform"),
}


def log_softmax(logits: Array) -> Array:
    normal: Array = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return normal


def cross_entropy(logits: Array, samples: RandomSamples) -> Array:
    return -log_softmax(logits)[np.arange(len(samples)), samples.labels]


def soft_labels(student: Array, samples: RandomSamples, t: float, squared: bool, weighting: str) -> float:
    total = 0.0
    for name in TEACHERS:
        teacher = samples.logits[name]
        losses = -(np.exp(log_softmax(teacher / t)) * log_softmax(student / t)).sum(-1)
        weights = 1 / (1 + cross_entropy(teacher, samples)) if weighting == "inverse-error" else 1.0
        total += float((weights * losses).mean())
    return total * (t * t if squared else 1.0)


def slopes(function: Callable[[Array], float], at: Array, directions: list[Array]) -> list[float]:
    """Central differences along each direction."""
    return [(function(at + 1e-5 * way) - function(at - 1e-5 * way)) / 2e-5 for way in directions]


def student_gradient(term: Term, samples: RandomSamples) -> Array:
    batch, outputs = samples.cut()
    logits = outputs[STUDENT].logits.requires_grad_()
    (gradient,) = torch.autograd.grad(value(term, batch, outputs), logits)
    return gradient.numpy().astype(np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_hard_labels_equal_the_mean_cross_entropy(seed: int) -> None:
    samples = RandomSamples(seed=seed)
    found = value(HardLabelsTerm(), *samples.cut()).item()
    assert found == pytest.approx(cross_entropy(samples.logits[STUDENT], samples).mean(), rel=1e-5)


def test_hard_labels_are_summed_over_the_models_that_learn() -> None:
    samples = RandomSamples(seed=5)
    found = value(HardLabelsTerm(TEACHERS), *samples.cut()).item()
    assert found == pytest.approx(sum(cross_entropy(samples.logits[name], samples).mean() for name in TEACHERS), rel=1e-5)


@pytest.mark.parametrize(("t", "squared", "weighting"), SOFT)
def test_soft_labels_equal_numpy(t: float, squared: bool, weighting: Weighting) -> None:
    samples = RandomSamples(seed=int(t))
    found = value(SoftLabelsTerm(TEACHERS, t, squared, weighting), *samples.cut()).item()
    assert found == pytest.approx(soft_labels(samples.logits[STUDENT], samples, t, squared, weighting), rel=1e-5)


def test_temperature_squared_is_a_factor_and_off_unless_asked_for() -> None:
    cut = RandomSamples().cut()
    plain = value(SoftLabelsTerm(TEACHERS, 3.0), *cut).item()
    assert value(SoftLabelsTerm(TEACHERS, 3.0, True), *cut).item() == pytest.approx(9 * plain)


def test_the_default_weighting_is_inverse_error_and_not_normalised_over_teachers() -> None:
    batch, outputs = RandomSamples().cut()
    outputs["roberta"] = outputs["bert"]
    assert value(SoftLabelsTerm(TEACHERS), batch, outputs).item() == pytest.approx(
        2 * value(SoftLabelsTerm(["bert"], weighting="inverse-error"), batch, outputs).item()
    )


def test_inverse_error_without_labels_is_refused_and_uniform_is_not() -> None:
    batch, outputs = RandomSamples().cut()
    batch = replace(batch, labels=None)
    with pytest.raises(RequestError, match="labels"):
        SoftLabelsTerm(TEACHERS)(batch, outputs)
    assert torch.isfinite(SoftLabelsTerm(TEACHERS, weighting="uniform")(batch, outputs)).all()


def test_hard_labels_gradient_equals_finite_differences() -> None:
    samples = RandomSamples(seed=2)
    directions = list(np.random.default_rng(0).normal(size=(5, len(samples), CLASSES)))
    expected = slopes(lambda z: float(cross_entropy(z, samples).mean()), samples.logits[STUDENT], directions)
    gradient = student_gradient(HardLabelsTerm(), samples)
    np.testing.assert_allclose([(gradient * way).sum() for way in directions], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("t", "squared", "weighting"), SOFT)
def test_soft_labels_gradient_equals_finite_differences(t: float, squared: bool, weighting: Weighting) -> None:
    samples = RandomSamples(seed=3)
    directions = list(np.random.default_rng(1).normal(size=(5, len(samples), CLASSES)))
    expected = slopes(lambda z: soft_labels(z, samples, t, squared, weighting), samples.logits[STUDENT], directions)
    gradient = student_gradient(SoftLabelsTerm(TEACHERS, t, squared, weighting), samples)
    np.testing.assert_allclose([(gradient * way).sum() for way in directions], expected, rtol=1e-4, atol=1e-6)


def test_a_student_that_answers_as_its_teacher_feels_no_pull() -> None:
    samples = RandomSamples()
    term = SoftLabelsTerm(["bert"], 2.0)
    assert np.abs(student_gradient(term, samples)).max() > 1e-3
    samples.logits[STUDENT] = samples.logits["bert"]
    assert np.abs(student_gradient(term, samples)).max() < 1e-7


@pytest.mark.parametrize("kind", MAKERS)
def test_a_batch_of_eight_equals_two_of_four(kind: str) -> None:
    samples, term = RandomSamples(seed=6), MAKERS[kind]()
    halves = value_of_parts(term, [samples.cut(range(4)), samples.cut(range(4, 8))])
    assert halves.item() == pytest.approx(value(term, *samples.cut()).item(), rel=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_batch_cut_unevenly_equals_the_whole_batch(kind: str) -> None:
    samples, term = RandomSamples(seed=7), MAKERS[kind]()
    parts = value_of_parts(term, [samples.cut([0]), samples.cut(range(1, 6)), samples.cut([6, 7])])
    assert parts.item() == pytest.approx(value(term, *samples.cut()).item(), rel=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_padding_changes_nothing(kind: str) -> None:
    samples, term = RandomSamples(seed=8), MAKERS[kind]()
    assert value(term, *samples.cut(more_padding=5)).item() == value(term, *samples.cut()).item()


@pytest.mark.parametrize("kind", MAKERS)
def test_value_and_gradient_stay_finite_for_extreme_logits(kind: str) -> None:
    samples = RandomSamples()
    for name in samples.logits:
        samples.logits[name] *= 1e4
    term = MAKERS[kind]()
    assert torch.isfinite(value(term, *samples.cut()))
    assert np.isfinite(student_gradient(term, samples)).all()


@pytest.mark.parametrize("kind", MAKERS)
def test_half_precision_answers_are_summed_in_fp32(kind: str) -> None:
    batch, outputs = RandomSamples().cut()
    rounded = {name: Output(output.logits.bfloat16()) for name, output in outputs.items()}
    whole = {name: Output(output.logits.float()) for name, output in rounded.items()}
    term = MAKERS[kind]()
    assert term(batch, rounded).dtype == torch.float32
    assert torch.equal(term(batch, rounded), term(batch, whole))


def test_soft_labels_leave_the_spread_of_the_weights_only_when_asked() -> None:
    samples, term = RandomSamples(), SoftLabelsTerm(TEACHERS)
    term(*samples.cut())
    assert not term.observed
    term.observing = True
    term(*samples.cut())
    for name in TEACHERS:
        weights = 1 / (1 + cross_entropy(samples.logits[name], samples))
        assert term.observed[f"weight-mean/{name}"].item() == pytest.approx(weights.mean(), rel=1e-5)
        assert term.observed[f"weight-spread/{name}"].item() == pytest.approx(weights.std(), rel=1e-4)
