"""The smallest difference that can be shown, against statsmodels and against how often the tests find it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.power import TTestPower

from kdcli.evaluation.power import mcnemar_power, smallest_accuracy_difference, smallest_t_difference
from kdcli.evaluation.significance import mcnemar, permutation_test, smallest_difference
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes


def rights(ours: Classes, theirs: Classes, labels: Classes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each of two models is right."""
    return ours == labels, theirs == labels


def simulated(samples: int, only_ours: float, only_theirs: float, seed: int) -> tuple[Classes, Classes, Classes]:
    """Answers of which those shares are right in one model alone; three quarters of the others are right in both."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=samples)
    draw, easy = generator.random(samples), generator.random(samples) < 0.75
    first, second = draw < only_ours, (draw >= only_ours) & (draw < only_ours + only_theirs)
    ours, theirs = np.where(first, True, easy & ~second), np.where(second, True, easy & ~first)
    return np.where(ours, labels, 1 - labels), np.where(theirs, labels, 1 - labels), labels


@pytest.mark.parametrize(("samples", "differing"), [(300, 0.12), (150, 0.3), (500, 0.0)])
def test_mcnemar_finds_the_smallest_difference_four_times_out_of_five(samples: int, differing: float) -> None:
    smallest = smallest_accuracy_difference(samples, differing)
    both = max(differing, smallest)
    shares = (both + smallest) / 2, (both - smallest) / 2
    found = [mcnemar(*rights(*simulated(samples, *shares, seed))).p_value <= 0.05 for seed in range(800)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.045)


def test_the_power_without_a_difference_is_how_often_the_test_is_wrong() -> None:
    found = [mcnemar(*rights(*simulated(200, 0.1, 0.1, seed))).p_value <= 0.05 for seed in range(1000)]
    assert mcnemar_power(200, 0.2, 0.0) == pytest.approx(np.mean(found), abs=0.02)
    assert mcnemar_power(200, 0.2, 0.0) <= 0.05
    assert mcnemar_power(200, 0.0, 0.0) == 0.0


@pytest.mark.parametrize(("samples", "differing"), [(872, 0.06), (9815, 0.1), (40_000, 0.08)])
def test_with_many_samples_it_is_what_the_normal_distribution_says(samples: int, differing: float) -> None:
    """Connor 1987: n d² = (1.960 √p + 0.842 √(p − d²))²."""
    smallest = smallest_accuracy_difference(samples, differing)
    expected = (1.960 * differing**0.5 + 0.842 * (differing - smallest**2) ** 0.5) / samples**0.5
    assert smallest == pytest.approx(expected, rel=0.05)


def test_too_few_samples_show_nothing() -> None:
    assert smallest_accuracy_difference(5, 0.4) == 1.0


def test_more_comparisons_show_only_larger_differences() -> None:
    assert smallest_accuracy_difference(300, 0.1, level=0.01) > smallest_accuracy_difference(300, 0.1)


@pytest.mark.parametrize("metric", ["matthews", "macro-f1"])
def test_the_permutation_test_finds_the_smallest_difference_about_four_times_out_of_five(metric: str) -> None:
    """The number of samples is the one for which the true difference of these shares is the smallest."""
    many, shares = 400_000, (0.1, 0.035)
    ours, theirs, labels = simulated(many, *shares, 1)
    truth = METRICS[metric].score(ours, labels) - METRICS[metric].score(theirs, labels)
    samples = round(many * (smallest_difference(METRICS[metric], ours, theirs, labels) / truth) ** 2)
    found = [permutation_test(METRICS[metric], *simulated(samples, *shares, seed)) <= 0.05 for seed in range(300)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("metric", ["matthews", "f1"])
def test_of_models_that_answer_alike_the_permutation_test_finds_the_smallest_difference_about_four_times_out_of_five(
    metric: str,
) -> None:
    """As many samples lost as make that difference: by one model alone, of those that both get right."""
    ours, _, labels = simulated(100, 0.0, 0.0, 1)
    smallest = smallest_difference(METRICS[metric], ours, ours, labels)
    many, _, gold = simulated(50_000, 0.0, 0.0, 2)

    def loss(share: float) -> float:
        lost = np.random.default_rng(3).random(len(gold)) < share
        return METRICS[metric].score(many, gold) - METRICS[metric].score(np.where(lost & (many == gold), 1 - many, many), gold)

    shares = np.linspace(0.04, 0.2, 17)
    share = shares[np.argmin([abs(loss(each) - smallest) for each in shares])]
    found = []
    for seed in range(80):
        model, _, truth = simulated(100, 0.0, 0.0, seed)
        lost = np.random.default_rng(seed + 10_000).random(100) < share
        worse = np.where(lost & (model == truth), 1 - model, model)
        found.append(permutation_test(METRICS[metric], model, worse, truth) <= 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.15)


def test_never_can_samples_show_a_difference_of_nothing() -> None:
    labels = np.array([0, 1] * 50)
    for metric in ("accuracy", "f1", "macro-f1", "weighted-f1", "matthews"):
        for answers in (labels, 1 - labels, np.zeros_like(labels)):
            assert smallest_difference(METRICS[metric], answers, answers, labels) > 0.03


@pytest.mark.parametrize(("seeds", "level"), [(2, 0.05), (3, 0.05), (5, 0.05), (5, 0.01), (10, 0.05)])
def test_the_smallest_difference_of_seeds_equals_that_of_statsmodels(seeds: int, level: float) -> None:
    deviation = 0.013
    expected = TTestPower().solve_power(nobs=seeds, alpha=level, power=0.8) * deviation
    assert smallest_t_difference(deviation / seeds**0.5, seeds - 1, level) == pytest.approx(expected, rel=2e-3)
