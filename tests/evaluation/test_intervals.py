"""Intervals hold the truth about as often as they say, and are those of a plain bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from kdcli.data.task import METRICS
from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.metrics import score


def test_interval_of_accuracy_holds_the_truth_about_19_times_in_20() -> None:
    truth, held = 0.85, 0
    for number in range(300):
        generator = np.random.default_rng(number)
        labels = generator.integers(0, 3, 200)
        right = generator.random(200) < truth
        low, high = score_interval("accuracy", np.where(right, labels, (labels + 1) % 3), labels)
        held += low <= truth <= high
    assert 0.90 <= held / 300 <= 0.98


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1"])
def test_interval_of_a_perfect_and_of_a_hopeless_model_is_one_point(metric: str) -> None:
    labels = np.array([0, 1, 2] * 20)
    assert score_interval(metric, labels, labels) == (1.0, 1.0)
    assert score_interval(metric, (labels + 1) % 3, labels) == (0.0, 0.0)


@pytest.mark.parametrize("metric", METRICS)
def test_one_sample_has_an_interval_of_one_point(metric: str) -> None:
    one = np.array([1])
    low, high = score_interval(metric, one, one)
    assert low == high == score(metric, one, one)


@pytest.mark.parametrize("metric", METRICS)
def test_only_one_class_has_an_interval_without_gaps(metric: str) -> None:
    labels = np.ones(30, dtype=np.int64)
    low, high = score_interval(metric, labels, labels)
    assert np.isfinite([low, high]).all()
    assert low <= high


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_interval_is_that_of_a_plain_bootstrap_over_pairs(metric: str) -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 120)
    predictions = np.where(generator.random(120) < 0.8, labels, 1 - labels)
    resampled = []
    for _ in range(999):
        rows = generator.integers(0, 120, 120)
        resampled.append(score(metric, predictions[rows], labels[rows]))
    low, high = score_interval(metric, predictions, labels)
    assert low < score(metric, predictions, labels) < high
    expected = np.percentile(resampled, [2.5, 97.5])
    np.testing.assert_allclose([low, high], expected, atol=0.12 * (expected[1] - expected[0]))


def test_interval_is_the_same_every_time_and_depends_on_the_seed() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 77)
    predictions = np.where(generator.random(77) < 0.7, labels, 1 - labels)
    assert score_interval("accuracy", predictions, labels) == score_interval("accuracy", predictions, labels)
    assert score_interval("accuracy", predictions, labels) != score_interval("accuracy", predictions, labels, seed=1)
