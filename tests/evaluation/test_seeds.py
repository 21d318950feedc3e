"""Tests of two recipes against scipy, and against simulations in which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdcli.errors import RequestError
from kdcli.evaluation.power import smallest_t_difference
from kdcli.evaluation.seeds import RecipeDifference, compare_recipes
from kdcli.evaluation.significance import holm

DEEP = [0.901, 0.905, 0.899, 0.910, 0.903]
SHALLOW = [0.890, 0.893, 0.899, 0.889, 0.900]


def compared(ours: list[float], theirs: list[float], first_of_theirs: int = 0) -> RecipeDifference:
    """Our seeds start at 0."""
    scores = {"deep": dict(enumerate(ours)), "shallow": dict(enumerate(theirs, first_of_theirs))}
    (found,) = compare_recipes("accuracy", scores)
    return found


def normal(count: int, mean: float, seed: int, deviation: float = 0.01) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(mean, deviation, count)]


def test_few_shared_seeds_are_compared_by_the_paired_t_test_of_scipy() -> None:
    found, expected = compared(DEEP, SHALLOW), stats.ttest_rel(DEEP, SHALLOW)
    assert found.test == "Paired t test"
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.paired, found.seeds) == (True, (5, 5))


def test_other_seeds_are_compared_by_the_welch_test_of_scipy() -> None:
    found, expected = compared(DEEP, SHALLOW[:3], 100), stats.ttest_ind(DEEP, SHALLOW[:3], equal_var=False)
    assert found.test == "Welch's t test"
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.paired, found.seeds) == (False, (5, 3))


def test_many_shared_seeds_are_compared_by_flipping_signs() -> None:
    ours, theirs = normal(8, 0.91, 1), normal(8, 0.90, 2)
    differences = np.array(ours) - np.array(theirs)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    as_much = np.abs(differences @ signs) >= abs(differences.sum()) - 1e-12
    found = compared(ours, theirs)
    assert found.test == "Sign-flip permutation test"
    assert found.p_value == pytest.approx(as_much.mean())


def test_several_comparisons_ask_for_more_seeds_before_signs_are_flipped() -> None:
    scores = {name: dict(enumerate(normal(9, 0.9, seed))) for seed, name in enumerate("abcd")}
    assert {each.test for each in compare_recipes("accuracy", scores)} == {"Paired t test"}
    assert compare_recipes("accuracy", scores, [("a", "b")])[0].test == "Sign-flip permutation test"


def test_seeds_that_only_one_recipe_has_are_left_out_where_the_others_pair() -> None:
    found = compared([*DEEP, 0.1], SHALLOW)
    assert found.p_value == pytest.approx(stats.ttest_rel(DEEP, SHALLOW).pvalue)
    assert found.difference == pytest.approx(np.mean(DEEP) - np.mean(SHALLOW))


def test_seeds_that_overlap_in_part_are_not_paired() -> None:
    assert not compared(DEEP, SHALLOW, 2).paired


@pytest.mark.parametrize(
    ("ours", "theirs", "first", "why"),
    [
        ([0.91] * 3, [0.81] * 3, 0, "the difference is the same with each of 3 seeds"),
        ([0.91, 0.85, 0.88], [0.81, 0.75, 0.78], 0, "the difference is the same with each of 3 seeds"),
        ([0.91] * 9, [0.81] * 9, 0, "the difference is the same with each of 9 seeds"),
        (DEEP, DEEP, 0, "the difference is the same with each of 5 seeds"),
        ([0.91] * 3, [0.81] * 3, 50, "each of the two scores the same with all of its seeds"),
    ],
)
def test_where_nothing_varies_between_seeds_there_is_no_interval_and_no_test_and_that_is_said(
    ours: list[float], theirs: list[float], first: int, why: str
) -> None:
    found = compared(ours, theirs, first)
    assert (found.low, found.high, found.smallest, found.p_value, found.significant) == (None, None, None, 1.0, False)
    points = f"{100 * found.difference:+.1f}"
    assert found.sentence == (
        f"deep against shallow: {points} points of accuracy. There is no interval and no test: {why}, so that nothing shows "
        "how far that may vary by chance."
    )


def test_one_recipe_that_does_not_vary_is_compared_by_welch() -> None:
    found = compared([0.9, 0.9, 0.9], [0.88, 0.89, 0.87, 0.885], 10)
    assert found.test == "Welch's t test"
    assert 0 < found.p_value < 0.05


def test_comparisons_are_corrected_together() -> None:
    scores = {name: dict(enumerate(normal(5, 0.9 + 0.01 * place, place))) for place, name in enumerate("abc")}
    found = compare_recipes("accuracy", scores)
    raw = [compare_recipes("accuracy", scores, [(each.ours, each.theirs)])[0].p_value for each in found]
    assert [each.p_value for each in found] == pytest.approx(holm(raw))
    assert {each.comparisons for each in found} == {3}


def test_an_interval_over_seeds_leaves_out_no_difference_exactly_where_it_is_significant() -> None:
    shown = []
    for seed in range(60):
        count = 3 + seed % 8
        scores = {
            name: dict(enumerate(normal(count, 0.9 + 0.006 * place, 100 * seed + place))) for place, name in enumerate("abc")
        }
        for each in compare_recipes("accuracy", scores):
            assert each.interval is not None
            assert each.significant == (each.interval[0] > 0 or each.interval[1] < 0)
            shown.append(each.significant)
    assert 0 < sum(shown) < len(shown)


def test_the_sentence_names_result_test_reason_and_limit() -> None:
    found = compared(DEEP, SHALLOW)
    assert found.sentence == (
        "deep against shallow: +0.9 points of accuracy (-0.1 to +2.0), p = 0.064. Paired t test, because they share 5 seeds, "
        "too few to do without taking their differences as normal. "
        "These seeds can only show differences above 1.4 points (80 % power, 5 % level)."
    )


def test_one_seed_is_refused() -> None:
    with pytest.raises(RequestError, match=r"shallow: has too few runs(.|\n)*found +1"):
        compared(DEEP, SHALLOW[:1])


@pytest.mark.parametrize(("count", "first"), [(3, 0), (8, 0), (4, 50)])
def test_without_a_difference_about_1_in_20_comparisons_is_wrong(count: int, first: int) -> None:
    found = [compared(normal(count, 0.9, seed), normal(count, 0.9, seed + 10_000), first) for seed in range(400)]
    assert 0.02 <= np.mean([each.significant for each in found]) <= 0.075


@pytest.mark.parametrize(("count", "first"), [(3, 0), (5, 50)])
def test_the_interval_covers_the_true_difference_in_about_19_of_20_cases(count: int, first: int) -> None:
    found = [compared(normal(count, 0.91, seed), normal(count, 0.9, seed + 10_000), first) for seed in range(400)]
    assert (
        0.925 <= np.mean([each.interval is not None and each.interval[0] <= 0.01 <= each.interval[1] for each in found]) <= 0.98
    )


@pytest.mark.parametrize("count", [3, 7, 8])
def test_the_smallest_difference_of_shared_seeds_is_found_about_four_times_out_of_five(count: int) -> None:
    deviation = 0.01 * 2**0.5
    smallest = smallest_t_difference(deviation / count**0.5, count - 1)
    found = [compared(normal(count, 0.9 + smallest, seed), normal(count, 0.9, seed + 10_000)) for seed in range(400)]
    assert np.mean([each.significant for each in found]) == pytest.approx(0.8, abs=0.06)


def test_the_smallest_difference_of_other_seeds_is_found_about_four_times_out_of_five() -> None:
    smallest = smallest_t_difference((2 / 6) ** 0.5 * 0.01, 10)
    found = [compared(normal(6, 0.9 + smallest, seed), normal(6, 0.9, seed + 10_000), 50) for seed in range(400)]
    assert np.mean([each.significant for each in found]) == pytest.approx(0.8, abs=0.06)
