"""Intervals and tests in worlds whose truth is known: how often the one holds it, and how often the other is wrong.

Two models here are right and wrong on the same samples more often than by chance, as a student and its teacher are, and
classes are of unequal size. Models that err independently are in ``test_significance.py``, recipes with normal scores of equal
spread in ``test_seeds.py``. A rate of 95 % over 500 worlds has a standard error of 1 point, so that 92 to 98 % allows for
three of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.paired import PairedScores
from kdcli.evaluation.resampling import PairedSample
from kdcli.evaluation.retention import retention
from kdcli.evaluation.seeds import RecipeDifference, compare_recipes
from kdcli.evaluation.significance import difference_interval, holm, mcnemar, permutation_test
from kdcli.tasks.calibration import ece_upper
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes

WORLDS = 500
LOWEST, HIGHEST = 0.92, 0.98
Floats = NDArray[np.float64]

SHARES = np.array([0.5, 0.3, 0.2])
CONFUSION = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.05, 0.2, 0.75]])  # a row for each gold class


def rights(ours: Classes, theirs: Classes, labels: Classes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each of two models is right."""
    return ours == labels, theirs == labels


def answers(labels: Classes, luck: Floats) -> Classes:
    """Answers as CONFUSION has them; ``luck`` [n], from 0 to 1, decides which."""
    first, second = (CONFUSION.cumsum(-1)[labels, column] for column in (0, 1))
    return np.asarray((luck >= first).astype(np.int64) + (luck >= second))


def worlds(samples: int, worse: float = 0.0) -> Iterator[tuple[Classes, Classes, Classes]]:
    """Our answers, theirs, and labels; on half of the samples the two have the same luck.

    We answer as CONFUSION has it, and so do they, save that a share ``worse`` of our answers is replaced by class 0.
    """
    for seed in range(WORLDS):
        generator = np.random.default_rng(seed)
        labels = generator.choice(3, samples, p=SHARES)
        luck = generator.random((2, samples))
        luck[0] = np.where(generator.random(samples) < 0.5, luck[1], luck[0])
        ours, theirs = answers(labels, luck[0]), answers(labels, luck[1])
        yield np.where(generator.random(samples) < worse, 0, ours), theirs, labels


def true_score(metric: str, worse: float = 0.0) -> float:
    """Over all samples that there are, by the textbook's formulas."""
    joint = SHARES[:, None] * ((1 - worse) * CONFUSION + worse * np.eye(3)[[0]])
    if metric == "accuracy":
        return float(np.trace(joint))
    if metric == "macro-f1":
        return float((2 * np.diag(joint) / (joint.sum(0) + joint.sum(1))).mean())
    assert metric == "pearson"
    values = np.arange(3)
    gold, given = joint.sum(1), joint.sum(0)
    covariance = values @ joint @ values - (values @ gold) * (values @ given)
    spread = [values**2 @ share - (values @ share) ** 2 for share in (gold, given)]
    return float(covariance / np.sqrt(np.prod(spread)))


@pytest.mark.parametrize(("truth", "samples"), [(0.9, 200), (0.98, 500), (0.75, 60)])
def test_the_interval_of_accuracy_holds_the_truth_in_95_percent_of_all_outcomes(truth: float, samples: int) -> None:
    """Not simulated: every outcome, with its probability."""
    from scipy import stats

    labels = np.zeros(samples, dtype=np.int64)
    held = 0.0
    for right in range(samples + 1):
        low, high = score_interval(METRICS["accuracy"], (np.arange(samples) >= right).astype(np.int64), labels)
        held += stats.binom.pmf(right, samples, truth) * (low <= truth <= high)
    assert LOWEST <= held <= HIGHEST


@pytest.mark.parametrize("metric", ["macro-f1", "pearson"])
def test_the_interval_of_other_metrics_holds_the_truth_in_95_percent_of_worlds(metric: str) -> None:
    truth = true_score(metric)
    found = [score_interval(METRICS[metric], ours, labels) for ours, _, labels in worlds(300)]
    assert LOWEST <= np.mean([low <= truth <= high for low, high in found]) <= HIGHEST


def test_the_interval_of_a_difference_holds_the_truth_in_95_percent_of_worlds() -> None:
    truth = true_score("macro-f1", 0.1) - true_score("macro-f1")
    found = [difference_interval(METRICS["macro-f1"], *world) for world in worlds(300, 0.1)]
    assert LOWEST <= np.mean([low <= truth <= high for low, high in found]) <= HIGHEST


@pytest.mark.parametrize(("samples", "only_ours", "only_theirs"), [(40, 0.02, 0.1), (100, 0.01, 0.04), (300, 0.05, 0.08)])
def test_the_interval_of_two_accuracies_is_not_too_narrow_where_few_answers_differ(
    samples: int, only_ours: float, only_theirs: float
) -> None:
    generator = np.random.default_rng(1)
    labels, held = np.zeros(samples, dtype=np.int64), []
    for seed in range(WORLDS):
        cells = generator.multinomial(samples, [only_ours, only_theirs, 0.75 - only_ours - only_theirs, 0.25])
        ours, theirs = np.repeat([0, 1, 0, 1], cells), np.repeat([1, 0, 0, 1], cells)
        low, high = difference_interval(METRICS["accuracy"], ours, theirs, labels, seed)
        held.append(low - 1e-12 <= only_ours - only_theirs <= high + 1e-12)
    assert LOWEST <= np.mean(held) <= 0.999  # it guards against the worst world, at the price of width in this one


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1"])
def test_the_interval_of_retention_holds_the_truth_in_95_percent_of_worlds(metric: str) -> None:
    truth = true_score(metric, 0.1) / true_score(metric)
    found = [retention(METRICS[metric], ours, theirs, labels, "teacher") for ours, theirs, labels in worlds(300, 0.1)]
    assert LOWEST <= np.mean([each is not None and covers(each.interval, truth) for each in found]) <= HIGHEST


def covers(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]


def recipe_differences(
    times: int, count: int, gain: float = 0.0, spread: float = 1.0, skewed: bool = False, shared: bool = True
) -> list[RecipeDifference]:
    """Deep against shallow, whose seeds scatter ``spread`` times as much; seeds that are shared share a part of their luck."""
    found = []
    generator = np.random.default_rng(0)
    for _ in range(times):
        luck = generator.exponential(size=(3, count)) - 1 if skewed else generator.normal(size=(3, count))
        own, other = luck[0] + luck[2], spread * luck[1] + luck[2] * shared
        first = 0 if shared else 100
        scores = {"deep": row(0.9 + gain + 0.005 * own), "shallow": row(0.9 + 0.005 * other, first)}
        found += compare_recipes("accuracy", scores)
    return found


def row(scores: Floats, first: int = 0) -> Mapping[int, float]:
    """Scores by seed."""
    return {first + index: float(value) for index, value in enumerate(scores)}


@pytest.mark.parametrize(
    ("count", "spread", "skewed", "shared", "test"),
    [
        (5, 2.0, False, True, "Paired t test"),
        (6, 3.0, False, False, "Welch's t test"),
        (8, 1.0, True, True, "Sign-flip permutation test"),
    ],
)
def test_seeds_hold_the_true_difference_in_95_percent_of_worlds_and_find_none_falsely_in_95_percent(
    count: int, spread: float, skewed: bool, shared: bool, test: str
) -> None:
    found = recipe_differences(1000, count, 0.0, spread, skewed, shared)
    assert {each.test for each in found} == {test}
    assert LOWEST <= np.mean([covers(each.interval, 0.0) for each in found]) <= HIGHEST
    assert 0.03 <= np.mean([each.significant for each in found]) <= 0.07  # three standard errors of 1,000 worlds


def test_an_interval_over_seeds_moves_with_the_difference() -> None:
    one, other = recipe_differences(20, 5, 0.01), recipe_differences(20, 5)
    lower = [[each.interval[0] for each in some if each.interval is not None] for some in (one, other)]
    np.testing.assert_allclose(np.array(lower[0]) - 0.01, np.array(lower[1]), atol=1e-12)


def probabilities(logits: NDArray[np.float32]) -> Floats:
    powers = np.exp(logits.astype(np.float64))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def true_calibration_error(factor: float) -> float:
    """Of logits that are ``factor`` times the true ones, over all texts: from a million chances, not from drawn labels."""
    honest = np.random.default_rng(99).normal(scale=1.5, size=(1_000_000, 3)).astype(np.float32)
    confidence, chance = probabilities(honest * np.float32(factor)).max(-1), probabilities(honest).max(-1)
    place = np.minimum((confidence * 15).astype(np.int64), 14)
    return float(np.abs(np.bincount(place, chance - confidence, 15)).sum() / len(honest))


@pytest.mark.parametrize(("factor", "truth_at_least"), [(1.0, 0.0), (1.3, 0.03), (3.0, 0.15)])
def test_the_bound_of_the_calibration_error_holds_in_at_least_95_percent_of_worlds(
    factor: float, truth_at_least: float
) -> None:
    truth = true_calibration_error(factor) if factor != 1.0 else 0.0
    assert truth >= truth_at_least
    bounds = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        honest = generator.normal(scale=1.5, size=(300, 3)).astype(np.float32)
        labels = (honest + generator.gumbel(size=honest.shape)).argmax(-1)
        bounds.append(ece_upper(honest * np.float32(factor), labels))
    assert np.mean(np.array(bounds) >= truth) >= 0.95
    assert np.mean(bounds) < truth + 0.15  # and it says something


def test_mcnemar_is_wrong_in_at_most_5_percent_of_worlds_where_models_err_together() -> None:
    wrong = [mcnemar(*rights(*world)).p_value <= 0.05 for world in worlds(300)]
    assert 0.01 <= np.mean(wrong) <= 0.06  # an exact test keeps to the safe side of 5 %; a standard error on top


def test_permutation_is_wrong_in_5_percent_of_worlds_and_three_comparisons_together_no_more_often() -> None:
    """Three models that share their luck on a third of the samples; without Holm's correction over 10 % would be wrong."""
    found = []
    for seed in range(WORLDS):
        generator = np.random.default_rng(seed)
        labels = generator.choice(3, 150, p=SHARES)
        luck = np.where(generator.random(150) < 1 / 3, generator.random(150), generator.random((3, 150)))
        one, two, three = (answers(labels, each) for each in luck)
        found.append(
            [permutation_test(METRICS["macro-f1"], *pair, labels) for pair in ((one, two), (one, three), (two, three))]
        )
    assert 0.03 <= np.mean(np.array(found) <= 0.05) <= 0.07  # three standard errors of 1,500 tests, two thirds independent
    assert np.mean([min(values) <= 0.05 for values in found]) > 0.09
    assert 0.02 <= np.mean([min(holm(values)) <= 0.05 for values in found]) <= 0.075  # 2.5 standard errors of 500 worlds


def two_models(
    generator: np.random.Generator, samples: int, teacher: float, lost: float, gained: float, rare: float = 0.5
) -> tuple[Classes, Classes, Classes]:
    """Two classes; the student loses and gains those shares of what its teacher gets right and wrong."""
    labels = (generator.random(samples) < rare).astype(np.int64)
    theirs = np.where(generator.random(samples) < teacher, labels, 1 - labels)
    ours = np.where(generator.random(samples) < np.where(theirs == labels, 1 - lost, gained), labels, 1 - labels)
    return ours, theirs, labels


@pytest.mark.parametrize("metric", ["macro-f1", "matthews"])
@pytest.mark.parametrize(
    ("samples", "teacher", "lost", "gained", "rare"),
    [(50, 1.0, 0.03, 0.0, 0.5), (100, 0.92, 0.02, 0.1, 0.5), (100, 0.93, 0.015, 0.1, 0.1), (50, 0.92, 0.1, 0.1, 0.5)],
)
def test_gates_on_bounds_pass_falsely_in_at_most_2_5_percent_of_worlds_from_50_samples_on(
    metric: str, samples: int, teacher: float, lost: float, gained: float, rare: float
) -> None:
    """At the true drop and share themselves; 2.5 % and two standard errors of 120 worlds. By quantiles alone up to 40 %."""
    ours, theirs, labels = two_models(np.random.default_rng(99), 400_000, teacher, lost, gained, rare)
    pairs = PairedSample.of(METRICS[metric], ours, theirs, labels)
    one, other = pairs.both()
    generator, passed, shares = np.random.default_rng(0), 0, 0
    for seed in range(120):
        scores = PairedScores.of(METRICS[metric], *two_models(generator, samples, teacher, lost, gained, rare), seed=seed)
        passed += scores.difference_interval()[0] > one - other
        share = scores.share_interval()
        shares += share is not None and share[0] > one / other
    assert passed / 120 <= 0.054
    assert shares / 120 <= 0.054


@pytest.mark.parametrize("samples", [50, 100, 1000])
@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "f1", "weighted-f1", "matthews"])
def test_models_that_answer_alike_leave_room_for_what_so_many_samples_may_have_missed(metric: str, samples: int) -> None:
    """Up to 3.7 of them, at the level of 97.5 %: (1 - 3.7 / n)^n is 2.5 %."""
    labels = np.arange(samples) % 2
    worse = np.where(np.arange(samples) < 4, 1 - labels, labels)
    scores = PairedScores.of(METRICS[metric], labels, labels, labels)
    low, high = scores.difference_interval()
    share = scores.share_interval()
    assert share is not None
    assert 0.85 * METRICS[metric].score(worse, labels) <= 1 + low <= METRICS[metric].score(worse, labels) + 0.2 * 4 / samples
    assert low == pytest.approx(-high)
    assert share[0] == pytest.approx(1 + low, abs=0.06)
