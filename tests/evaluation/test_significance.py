"""Tests of two models against scipy and statsmodels, and against simulations in which the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from kdcli.errors import RequestError
from kdcli.evaluation.significance import compare_models, difference_interval, holm, mcnemar, permutation_test
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes

Answers = tuple[Classes, Classes, Classes]


def rights(ours: Classes, theirs: Classes, labels: Classes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each of two models is right."""
    return ours == labels, theirs == labels


def matthews_of_two_classes(answers: Classes, labels: Classes) -> Any:
    """Pearson's correlation, of many sets of samples at once."""
    one, other = (values - values.mean(-1, keepdims=True) for values in (answers, labels))
    return (one * other).sum(-1) / np.sqrt((one**2).sum(-1) * (other**2).sum(-1))


METRIC_OF: dict[str, Callable[[Classes, Classes], Any]] = {
    "accuracy": lambda answers, labels: (answers == labels).mean(-1),
    "f1": lambda answers, labels: 2 * (answers * labels).sum(-1) / (answers + labels).sum(-1),
    "matthews": matthews_of_two_classes,
}


def drawn(count: int, ours: float, theirs: float, seed: int) -> Answers:
    """Answers that are right with those chances, each on its own, and labels: two classes of unequal size."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.4).astype(np.int64)
    one, other = (np.where(generator.random(count) < chance, labels, 1 - labels) for chance in (ours, theirs))
    return one, other, labels


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_equals_that_of_statsmodels(seed: int) -> None:
    ours, theirs, labels = drawn(80, 0.85, 0.75, seed)
    table = [[((ours == labels) == a)[(theirs == labels) == b].sum() for b in (True, False)] for a in (True, False)]
    found = mcnemar(ours == labels, theirs == labels)
    assert (found.only_ours, found.only_theirs) == (table[0][1], table[1][0])
    assert found.p_value == pytest.approx(mcnemar_of_statsmodels(table, exact=True).pvalue)


def test_models_that_answer_alike_do_not_differ() -> None:
    ours, _, labels = drawn(50, 0.8, 0.8, 0)
    assert mcnemar(ours == labels, ours == labels).p_value == 1.0
    for metric in METRICS:
        assert permutation_test(METRICS[metric], ours, ours, labels) == 1.0
        low, high = difference_interval(METRICS[metric], ours, ours, labels)
        assert low < 0 < high
        assert low == pytest.approx(-high)
        assert high < (0.2 if metric in ("matthews", "pearson", "spearman") else 0.12)


@pytest.mark.parametrize("metric", METRIC_OF)
def test_the_interval_of_many_samples_equals_that_of_scipy(metric: str) -> None:
    def statistic(one: Classes, other: Classes, gold: Classes, axis: int) -> Any:
        return METRIC_OF[metric](one, gold) - METRIC_OF[metric](other, gold)

    answers = drawn(2000, 0.85, 0.75, 1)
    expected = stats.bootstrap(answers, statistic, paired=True, method="BCa", n_resamples=2000, rng=0)
    low, high = expected.confidence_interval
    assert difference_interval(METRICS[metric], *answers) == pytest.approx((low, high), abs=0.07 * (high - low))


@pytest.mark.parametrize("metric", METRIC_OF)
@pytest.mark.parametrize("seed", [2, 4])
def test_the_permutation_test_equals_that_of_scipy(metric: str, seed: int) -> None:
    ours, theirs, labels = drawn(60, 0.85, 0.72, seed)

    def statistic(one: Classes, other: Classes, axis: int) -> Any:
        return METRIC_OF[metric](one, labels) - METRIC_OF[metric](other, labels)

    expected = stats.permutation_test((ours, theirs), statistic, permutation_type="samples", n_resamples=5000, rng=0)
    assert permutation_test(METRICS[metric], ours, theirs, labels) == pytest.approx(expected.pvalue, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_for_accuracy_permutation_and_mcnemar_say_the_same(seed: int) -> None:
    answers = drawn(120, 0.85, 0.78, seed)
    assert permutation_test(METRICS["accuracy"], *answers) == pytest.approx(mcnemar(*rights(*answers)).p_value, abs=0.03)


@pytest.mark.parametrize("metric", ["accuracy", "matthews"])
def test_the_interval_covers_the_true_difference_in_about_19_of_20_cases(metric: str) -> None:
    truth = _true_difference(metric)
    covered = 0
    for seed in range(300):
        low, high = difference_interval(METRICS[metric], *drawn(200, 0.85, 0.8, seed))
        covered += low <= truth <= high
    assert 0.93 <= covered / 300 <= 0.995  # on the safe side


def _true_difference(metric: str) -> float:
    ours, theirs, labels = drawn(1_000_000, 0.85, 0.8, 99)
    return METRICS[metric].score(ours, labels) - METRICS[metric].score(theirs, labels)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_the_permutation_test_is_wrong_in_about_1_of_20_cases_without_a_difference(metric: str) -> None:
    found = [permutation_test(METRICS[metric], *drawn(150, 0.8, 0.8, seed)) for seed in range(300)]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.08


def test_mcnemar_is_wrong_in_at_most_1_of_20_cases_without_a_difference() -> None:
    found = [mcnemar(*rights(*drawn(150, 0.8, 0.8, seed))).p_value for seed in range(600)]
    assert 0.015 <= np.mean(np.array(found) <= 0.05) <= 0.06  # exact tests keep to the safe side


@pytest.mark.parametrize("values", [[0.01, 0.04, 0.03], [0.5, 0.02, 0.02, 0.9, 1e-6], [0.3], [0.9, 0.8]])
def test_holm_equals_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []


def test_the_chance_of_any_false_finding_among_six_comparisons_is_at_most_1_in_20() -> None:
    wrong = 0
    for seed in range(200):
        right = np.random.default_rng(seed).random((4, 150)) < 0.8
        values = [mcnemar(right[i], right[j]).p_value for i in range(4) for j in range(i)]
        wrong += min(holm(values)) <= 0.05
    assert wrong / 200 <= 0.075


def test_each_is_compared_with_each_and_corrected_together() -> None:
    ours, theirs, labels = drawn(200, 0.9, 0.7, 6)
    answers = {"student": ours, "bert": theirs, "gold": labels}
    found = compare_models(METRICS["accuracy"], answers, labels)
    assert [(each.ours, each.theirs) for each in found] == [("student", "bert"), ("student", "gold"), ("bert", "gold")]
    raw = [mcnemar(answers[each.ours] == labels, answers[each.theirs] == labels).p_value for each in found]
    assert [each.p_value for each in found] == pytest.approx(holm(raw))
    assert {each.comparisons for each in found} == {3}
    assert all(each.significant for each in found)


def test_a_comparison_says_the_difference_its_interval_the_counts_and_the_samples() -> None:
    ours, theirs, labels = drawn(200, 0.9, 0.7, 6)
    (found,) = compare_models(METRICS["accuracy"], {"a": ours, "b": theirs}, labels, [("b", "a")])
    assert found.difference == pytest.approx(
        METRICS["accuracy"].score(theirs, labels) - METRICS["accuracy"].score(ours, labels)
    )
    assert (found.low, found.high) == difference_interval(METRICS["accuracy"], theirs, ours, labels)
    assert found.interval is not None
    assert found.interval[0] < found.difference < found.interval[1] < 0
    assert found.only_ours is not None
    assert found.only_theirs is not None
    assert (found.only_ours - found.only_theirs) / 200 == pytest.approx(found.difference)
    assert (found.samples, found.comparisons) == (200, 1)


def test_the_sentence_names_result_test_reason_and_limit() -> None:
    labels = np.zeros(100, dtype=np.int64)
    ours, theirs = labels.copy(), labels.copy()
    ours[:2], theirs[10:14] = 1, 1
    (found,) = compare_models(METRICS["accuracy"], {"student": ours, "bert": theirs}, labels)
    assert found.sentence.startswith("student against bert: +2.0 points of accuracy (")
    assert "p = 0.688. McNemar's exact test, because both answered the same samples" in found.sentence
    points = 100 * (found.smallest or 0)
    limit = f"These 100 samples can only show differences above {points:.1f} points (80 % power, 5 % level)."
    assert found.sentence.endswith(limit)
    assert not found.significant


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1", "matthews"])
@pytest.mark.parametrize("models", [2, 3])
def test_an_interval_leaves_out_no_difference_exactly_where_the_difference_is_significant(metric: str, models: int) -> None:
    shown = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        labels = generator.integers(2, size=80)
        chances = generator.choice([0.65, 0.8, 0.9], models)
        answers = {str(chance) + "abcd"[place]: drawn_at(chance, labels, generator) for place, chance in enumerate(chances)}
        for each in compare_models(METRICS[metric], answers, labels):
            assert each.interval is not None
            low, high = each.interval
            assert low <= each.difference <= high
            assert each.significant == (low > 0 or high < 0) == (each.p_value <= 0.05)
            shown.append(each.significant)
    assert 0 < sum(shown) < len(shown)


def drawn_at(chance: float, labels: Classes, generator: np.random.Generator) -> Classes:
    return np.where(generator.random(len(labels)) < chance, labels, 1 - labels)


def test_intervals_of_several_comparisons_hold_together() -> None:
    ours, theirs, labels = drawn(200, 0.9, 0.8, 6)
    alone = compare_models(METRICS["macro-f1"], {"a": ours, "b": theirs}, labels)[0]
    among = compare_models(METRICS["macro-f1"], {"a": ours, "b": theirs, "c": labels}, labels)[0]
    assert alone.interval is not None
    assert among.interval is not None
    assert among.interval[0] < alone.interval[0]
    assert alone.interval[1] < among.interval[1]
    assert among.interval == pytest.approx(difference_interval(METRICS["macro-f1"], ours, theirs, labels, level=0.05 / 3))


@pytest.mark.parametrize("samples", [40, 100, 1000])
def test_the_interval_of_two_accuracies_is_close_to_the_score_interval_of_tango(samples: int) -> None:
    labels = np.zeros(samples, dtype=np.int64)
    for only_ours, only_theirs in ((0, 0), (0, 4), (3, 8), (6, 15)):
        ours = np.repeat([0, 1, 0], [only_ours, only_theirs, samples - only_ours - only_theirs])
        theirs = np.repeat([1, 0, 0], [only_ours, only_theirs, samples - only_ours - only_theirs])
        low, high = difference_interval(METRICS["accuracy"], ours, theirs, labels)
        expected = tango(samples, only_ours, only_theirs)
        assert (low, high) == pytest.approx(expected, abs=0.3 * (expected[1] - expected[0]))
        assert high - low >= 0.93 * (expected[1] - expected[0])


def tango(samples: int, only_ours: int, only_theirs: int) -> tuple[float, float]:
    """Tango 1998, by the root of his score statistic."""

    def statistic(difference: float) -> float:
        middle = -only_ours - only_theirs + (2 * samples - only_ours + only_theirs) * difference
        last = -only_theirs * difference * (1 - difference)
        share = (np.sqrt(max(middle**2 - 8 * samples * last, 0.0)) - middle) / (4 * samples)
        spread = samples * (2 * share + difference * (1 - difference))
        return float((only_ours - only_theirs - samples * difference) / np.sqrt(max(spread, 1e-12)))

    observed = (only_ours - only_theirs) / samples
    low = optimize.brentq(lambda value: statistic(value) - 1.959964, -0.999, observed - 1e-9)
    high = optimize.brentq(lambda value: statistic(value) + 1.959964, observed + 1e-9, 0.999)
    return float(low), float(high)


def test_other_metrics_are_compared_by_permutation() -> None:
    ours, theirs, labels = drawn(200, 0.9, 0.7, 6)
    found = compare_models(METRICS["matthews"], {"a": ours, "b": theirs, "c": ours}, labels)
    assert found[0].p_value == pytest.approx(permutation_test(METRICS["matthews"], ours, theirs, labels) * 3)
    assert "Paired permutation test" in found[0].sentence
    assert "after Holm's correction for 3 comparisons" in found[0].sentence
    assert "5 % level shared among 3 comparisons" in found[0].sentence


def test_the_same_answers_get_the_same_comparison() -> None:
    ours, theirs, labels = drawn(100, 0.9, 0.7, 6)
    answers = {"a": ours, "b": theirs}
    assert compare_models(METRICS["macro-f1"], answers, labels) == compare_models(METRICS["macro-f1"], answers, labels)


def test_predictions_of_unequal_length_are_refused() -> None:
    ours, theirs, labels = drawn(20, 0.9, 0.7, 6)
    with pytest.raises(RequestError, match="do not belong to the labels"):
        compare_models(METRICS["accuracy"], {"a": ours, "b": theirs[:-1]}, labels)


def test_exchanges_that_never_differ_as_much_leave_the_observed_one_alone() -> None:
    """One of 2,000: what was observed counts as one of the exchanges, so that no p-value is 0."""
    _, _, labels = drawn(200, 0.9, 0.7, 6)
    assert permutation_test(METRICS["macro-f1"], labels, 1 - labels, labels) == 1 / 2000
