"""Resamples scored from counts, against the same resamples scored sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kdcli.errors import RequestError
from kdcli.evaluation import resampling
from kdcli.evaluation.resampling import PairedSample, Sample
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.metric import Metric


def answers(classes: int, seed: int, count: int = 60) -> tuple[Classes, Classes, Classes]:
    """Two models' answers, each right on most samples, and the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    ours, theirs = (np.where(generator.random(count) < 0.7, labels, generator.integers(classes, size=count)) for _ in "ab")
    return ours, theirs, labels


def by_scikit_learn(metric: str, said: Classes, labels: Classes) -> float:
    """A metric computed by others."""
    if metric == "accuracy":
        return float(accuracy_score(labels, said))
    if metric == "matthews":
        return 0.0 if len(np.union1d(labels, said)) == 1 else float(matthews_corrcoef(labels, said))
    if metric in ("pearson", "spearman"):
        if np.ptp(said) == 0 or np.ptp(labels) == 0:
            return 0.0
        return float((stats.pearsonr if metric == "pearson" else stats.spearmanr)(said, labels).statistic)
    if metric == "f1":
        return float(f1_score(labels, said, pos_label=1, zero_division=0.0))
    present = np.union1d(labels, said)
    return float(f1_score(labels, said, labels=present, average=metric.removesuffix("-f1"), zero_division=0.0))


@pytest.mark.parametrize(("metric", "classes"), [(name, n) for name in METRICS for n in (2, 4) if name != "f1" or n == 2])
def test_every_metric_under_weights_is_that_of_the_repeated_samples_by_scikit_learn_and_scipy(
    metric: str, classes: int
) -> None:
    ours, _, labels = answers(classes, 1)
    generator = np.random.default_rng(2)
    counts = generator.multinomial(15, np.full(60, 1 / 60), size=20)  # few enough that classes go missing
    expected = [by_scikit_learn(metric, np.repeat(ours, row), np.repeat(labels, row)) for row in counts]
    assert METRICS[metric].scores(ours, labels, counts) == pytest.approx(expected)
    alone = [METRICS[metric].score(np.repeat(ours, row), np.repeat(labels, row)) for row in counts]
    assert alone == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("label", "answer"), [(0, 0), (1, 1), (0, 1)])
def test_one_class_alone_scores_as_scikit_learn_scores_it(metric: str, label: int, answer: int) -> None:
    labels, ours = np.full(5, label), np.full(5, answer)
    assert METRICS[metric].score(ours, labels) == pytest.approx(by_scikit_learn(metric, ours, labels))


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlations_of_a_million_samples_are_those_of_scipy(metric: str) -> None:
    ours, _, labels = answers(5, 6, 1_000_000)
    assert METRICS[metric].score(ours, labels) == pytest.approx(by_scikit_learn(metric, ours, labels), abs=1e-12)


def test_samples_are_counted_by_label_and_prediction() -> None:
    model = Sample.of(METRICS["accuracy"], np.array([0, 2, 2, 2, 1]), np.array([0, 2, 2, 1, 1]))
    found = (model.targets.tolist(), model.predictions.tolist(), model.counts.tolist())
    assert found == ([0, 1, 1, 2], [0, 1, 2, 2], [1, 1, 1, 2])


def test_pairs_are_counted_as_numpy_counts_columns() -> None:
    ours, theirs, labels = answers(7, 8)
    found = PairedSample.of(METRICS["accuracy"], ours, theirs, labels)
    kinds, counts = np.unique(np.stack([labels, ours, theirs]), axis=1, return_counts=True)
    assert np.array_equal(np.stack([found.targets, found.ours, found.theirs]), kinds)
    assert np.array_equal(found.counts, counts)


def test_both_models_are_scored_on_the_same_resamples() -> None:
    ours, theirs, labels = answers(3, 4)
    pairs = PairedSample.of(METRICS["accuracy"], ours, theirs, labels)
    one, other = pairs.both_resampled(50, np.random.default_rng(0))
    assert np.array_equal(one - other, pairs.resampled(50, np.random.default_rng(0)))
    same, again = PairedSample.of(METRICS["macro-f1"], ours, ours, labels).both_resampled(50, np.random.default_rng(0))
    assert np.array_equal(same, again)


def test_resamples_drawn_in_parts_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, labels = answers(3, 4)
    pairs = PairedSample.of(METRICS["macro-f1"], ours, theirs, labels)

    def drawn() -> list[NDArray[np.float64]]:
        return [pairs.resampled(50, np.random.default_rng(0)), pairs.swapped(50, np.random.default_rng(0))]

    whole = drawn()
    monkeypatch.setattr(resampling, "_AT_ONCE", 7 * len(pairs.counts))
    assert all(np.array_equal(one, other) for one, other in zip(whole, drawn(), strict=True))


@pytest.mark.parametrize("metric", METRICS)
def test_the_difference_is_that_of_the_scores(metric: str) -> None:
    ours, theirs, labels = answers(2, 3)
    expected = METRICS[metric].score(ours, labels) - METRICS[metric].score(theirs, labels)
    assert PairedSample.of(METRICS[metric], ours, theirs, labels).difference() == pytest.approx(expected)


@pytest.mark.parametrize("metric", [METRICS["accuracy"], METRICS["macro-f1"]], ids=lambda metric: metric.name)
def test_bootstrap_draws_spread_like_those_drawn_sample_by_sample(metric: Metric) -> None:
    ours, theirs, labels = answers(3, 4)
    drawn = PairedSample.of(metric, ours, theirs, labels).resampled(20_000, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    rows = (generator.integers(60, size=60) for _ in range(500))
    by_hand = [metric.score(ours[row], labels[row]) - metric.score(theirs[row], labels[row]) for row in rows]
    assert drawn.mean() == pytest.approx(np.mean(by_hand), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(by_hand), rel=0.12)


@pytest.mark.parametrize("metric", [METRICS["accuracy"], METRICS["macro-f1"]], ids=lambda metric: metric.name)
def test_exchanges_spread_like_those_tossed_sample_by_sample(metric: Metric) -> None:
    ours, theirs, labels = answers(3, 5)
    drawn = PairedSample.of(metric, ours, theirs, labels).swapped(20_000, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    by_hand = []
    for _ in range(500):
        coin = generator.random(60) < 0.5
        one, other = np.where(coin, ours, theirs), np.where(coin, theirs, ours)
        by_hand.append(metric.score(one, labels) - metric.score(other, labels))
    assert drawn.mean() == pytest.approx(0.0, abs=0.005)
    assert drawn.std() == pytest.approx(np.std(by_hand), rel=0.12)


@pytest.mark.parametrize(("predictions", "labels"), [(3, 4), (1, 4), (0, 0)])
def test_predictions_that_do_not_belong_to_the_labels_are_refused(predictions: int, labels: int) -> None:
    ours = np.zeros(predictions, dtype=np.int64)
    with pytest.raises(RequestError, match=rf"predictions(.|\n)*found +{predictions} predictions"):
        PairedSample.of(METRICS["accuracy"], ours, ours, np.zeros(labels, dtype=np.int64))
