"""Intervals of one model's score against statsmodels and scipy; how often they hold the truth is in ``test_coverage.py``."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from kdcli.errors import RequestError
from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.resampling import Sample
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes


def answers(count: int, classes: int, chance: float, seed: int) -> tuple[Classes, Classes]:
    """Predictions that are right with that chance, else one class off, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    return np.where(generator.random(count) < chance, labels, (labels + 1) % classes), labels


@pytest.mark.parametrize(("right", "samples"), [(0, 20), (1, 1), (17, 20), (180, 200), (400, 400)])
def test_the_interval_of_accuracy_is_that_of_wilson_by_statsmodels(right: int, samples: int) -> None:
    predictions = (np.arange(samples) >= right).astype(np.int64)
    expected = proportion_confint(right, samples, method="wilson")
    assert score_interval(METRICS["accuracy"], predictions, np.zeros(samples, dtype=np.int64)) == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != "accuracy"])
def test_the_interval_of_other_metrics_by_many_samples_is_that_of_the_bootstrap_by_scipy(metric: str) -> None:
    predictions, labels = answers(1500, 2 if metric == "f1" else 4, 0.8, 3)

    def statistic(ours: Classes, gold: Classes) -> float:
        return METRICS[metric].score(ours, gold)

    found: Any = stats.bootstrap(
        (predictions, labels), statistic, paired=True, vectorized=False, n_resamples=399, method="percentile", rng=0
    )
    low, high = found.confidence_interval
    width = high - low
    assert score_interval(METRICS[metric], predictions, labels) == pytest.approx((low, high), abs=0.12 * width)


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != "accuracy"])
def test_right_answers_have_an_interval_no_narrower_than_a_few_wrong_ones_would_be(metric: str) -> None:
    """Of 60 samples all right, up to 3.7 of 60 may be wrong at the level of 97.5 %."""
    labels = np.array([0, 1] * 30)
    predictions = labels.copy()
    predictions[[0, 1, 2]] = 1 - labels[[0, 1, 2]]
    low, high = score_interval(METRICS[metric], labels, labels)
    assert 0.6 < low < METRICS[metric].score(predictions, labels)
    assert high == 1.0


def test_right_answers_have_a_width_by_wilson() -> None:
    labels = np.array([0, 1, 2] * 20)
    assert score_interval(METRICS["accuracy"], labels, labels) == pytest.approx((0.93982, 1.0), abs=1e-5)
    assert score_interval(METRICS["accuracy"], (labels + 1) % 3, labels) == pytest.approx((0.0, 1 - 0.93982), abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("samples", [1, 2, 30])
def test_few_samples_and_only_one_class_have_an_interval_without_gaps(metric: str, samples: int) -> None:
    labels = np.ones(samples, dtype=np.int64)
    low, high = score_interval(METRICS[metric], labels, labels)
    lowest = -1 if metric in ("matthews", "pearson", "spearman") else 0
    assert lowest <= low <= METRICS[metric].score(labels, labels) <= high <= 1


def test_the_interval_is_the_same_every_time_and_depends_on_the_seed() -> None:
    predictions, labels = answers(77, 2, 0.7, 0)
    assert score_interval(METRICS["macro-f1"], predictions, labels) == score_interval(METRICS["macro-f1"], predictions, labels)
    assert score_interval(METRICS["macro-f1"], predictions, labels) != score_interval(
        METRICS["macro-f1"], predictions, labels, seed=1
    )


def test_the_interval_of_ten_thousand_samples_of_twenty_classes_takes_no_second() -> None:
    predictions, labels = answers(10_000, 20, 0.8, 0)
    begin = perf_counter()
    score_interval(METRICS["macro-f1"], predictions, labels)
    assert perf_counter() - begin < 1.0  # 0.04 s on an idle core


def test_predictions_that_do_not_belong_to_the_labels_are_refused() -> None:
    with pytest.raises(RequestError, match="do not belong to the labels"):
        score_interval(METRICS["macro-f1"], np.array([0, 1]), np.array([0, 1, 1]))


def test_as_many_samples_more_as_wilsons_interval_has_are_right_and_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    smoothed = Sample.smoothed

    def watched(self: Sample, extra: float) -> Sample:
        asked.append(extra)
        return smoothed(self, extra)

    monkeypatch.setattr(Sample, "smoothed", watched)
    labels = np.arange(40) % 2
    score_interval(METRICS["macro-f1"], labels, labels)
    assert asked == [pytest.approx(stats.norm.ppf(0.975) ** 2 / 2)]
