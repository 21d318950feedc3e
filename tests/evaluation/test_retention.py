"""Shares of a score against scipy; how often their intervals hold the truth is in ``test_coverage.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from kdcli.errors import RequestError
from kdcli.evaluation.retention import held_against, retention
from kdcli.evaluation.significance import compare_models
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes

NAMES = ("accuracy", "macro-f1", "matthews")


def drawn(count: int, ours: float, theirs: float, seed: int) -> tuple[Classes, Classes, Classes]:
    """Two classes, answers that are right with those chances, and labels."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.4).astype(np.int64)
    one, other = (np.where(generator.random(count) < chance, labels, 1 - labels) for chance in (ours, theirs))
    return one, other, labels


@pytest.mark.parametrize("metric", NAMES)
def test_the_share_is_the_quotient_of_the_scores_with_the_interval_of_the_paired_bootstrap_by_scipy(metric: str) -> None:
    answers = drawn(1500, 0.85, 0.92, 1)

    def share(ours: Classes, theirs: Classes, labels: Classes) -> float:
        return METRICS[metric].score(ours, labels) / METRICS[metric].score(theirs, labels)

    expected: Any = stats.bootstrap(answers, share, paired=True, vectorized=False, n_resamples=499, method="percentile", rng=0)
    low, high = expected.confidence_interval
    found = retention(METRICS[metric], *answers, "bert")
    assert found is not None
    assert found.of == "bert"
    assert found.value == pytest.approx(share(*answers))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.12 * (high - low))


@pytest.mark.parametrize("metric", NAMES)
def test_a_model_keeps_all_of_its_own_score(metric: str) -> None:
    ours, _, labels = drawn(60, 0.9, 0.9, 2)
    found = retention(METRICS[metric], ours, ours, labels, "itself")
    assert found is not None
    room = 0.3 if metric == "matthews" else 0.1  # other samples may differ where these do not
    assert found.value == pytest.approx(1.0)
    assert found.interval is not None
    assert 1 - room < found.interval[0] < 1 < found.interval[1] < 1 + room


def test_where_the_other_model_scores_nothing_there_is_nothing_to_keep() -> None:
    labels = np.array([0, 1] * 10)
    assert retention(METRICS["accuracy"], labels, 1 - labels, labels, "bert") is None
    assert retention(METRICS["matthews"], labels, 1 - labels, labels, "bert") is None
    assert retention(METRICS["matthews"], labels, np.zeros_like(labels), labels, "bert") is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_a_model_that_scores_nothing_on_some_resamples_gives_no_infinite_interval(metric: str, seed: int) -> None:
    ours, theirs, labels = drawn(12, 0.7, 0.4, seed)
    theirs[labels.argmax()], theirs[labels.argmin()] = 1, 0  # right once in each class
    found = retention(METRICS[metric], ours, theirs, labels, "bert")
    assert found is None or found.interval is None or np.isfinite([found.value, *found.interval]).all()


def test_a_single_sample_says_next_to_nothing_of_a_share() -> None:
    one = np.array([1])
    found = retention(METRICS["accuracy"], one, one, one, "bert")
    assert found is not None
    assert found.value == 1.0
    assert found.interval is None or (found.interval[0] < 0.1 and found.interval[1] > 10)


def test_a_model_may_keep_less_than_nothing() -> None:
    labels = np.array([0, 1] * 10)
    found = retention(METRICS["matthews"], 1 - labels, labels, labels, "bert")
    assert found is not None
    assert found.value == pytest.approx(-1.0)
    assert found.interval is None or found.interval[0] < -1.0 < found.interval[1] < 0.0


@pytest.mark.parametrize("right", [51, 53, 56])
def test_a_share_of_next_to_nothing_has_no_interval_instead_of_an_arbitrary_one(right: int) -> None:
    """Matthews' correlation of guesses: by luck a little above 0, so that the quotient may be anything."""
    labels = np.array([0, 1] * 50)
    ours, theirs = (np.where(np.arange(100) < count, labels, 1 - labels) for count in (80, right))
    found, drop = held_against(METRICS["matthews"], ours, theirs, labels, "bert")
    assert found is not None
    assert found.value > 1
    assert found.interval is None
    assert -2 <= drop.low < drop.value < drop.high <= 2


@pytest.mark.parametrize("metric", NAMES)
@pytest.mark.parametrize(("count", "chances"), [(40, (0.9, 0.6)), (60, (0.8, 0.9)), (100, (0.85, 0.92)), (100, (0.9, 0.82))])
def test_share_and_drop_and_test_say_the_same_of_the_same_two_models(
    metric: str, count: int, chances: tuple[float, float]
) -> None:
    shown = []
    for seed in range(5):
        answers = drawn(count, *chances, seed)
        found, drop = held_against(METRICS[metric], *answers, "bert")
        (difference,) = compare_models(METRICS[metric], {"student": answers[0], "bert": answers[1]}, answers[2])
        assert (difference.low, difference.high) == (-drop.high, -drop.low)
        assert difference.significant == (not drop.low <= 0 <= drop.high)
        if found is not None and found.interval is not None:
            assert difference.significant == (not found.interval[0] <= 1 <= found.interval[1])
            assert (found.interval[0] > 1) == (drop.high < 0)
            assert found.interval[0] <= found.value <= found.interval[1]
        shown.append(difference.significant)
    assert any(shown) or chances[0] < chances[1]


def test_predictions_that_do_not_belong_to_the_labels_are_refused() -> None:
    ours, theirs, labels = drawn(20, 0.9, 0.9, 0)
    with pytest.raises(RequestError, match="do not belong to the labels"):
        retention(METRICS["accuracy"], ours[:-1], theirs, labels, "bert")
