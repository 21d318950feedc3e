"""Resamples scored from counts, against the same resamples scored sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from kdcli.data.task import METRICS
from kdcli.errors import RequestError
from kdcli.evaluation.metrics import Classes, score
from kdcli.evaluation.resampling import Answers, Pairs, scores_of_counts


def answers(classes: int, seed: int, count: int = 60) -> tuple[Classes, Classes, Classes]:
    """Two models' answers, each right on most samples, and the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    ours, theirs = (np.where(generator.random(count) < 0.7, labels, generator.integers(classes, size=count)) for _ in "ab")
    return ours, theirs, labels


@pytest.mark.parametrize(("metric", "classes"), [(metric, n) for metric in METRICS for n in (2, 4) if metric != "f1" or n == 2])
def test_every_metric_of_counts_equals_that_of_the_samples(metric: str, classes: int) -> None:
    ours, _, labels = answers(classes, 1)
    generator = np.random.default_rng(2)
    counts = generator.multinomial(15, np.full(60, 1 / 60), size=20)  # few enough that classes go missing
    expected = [score(metric, np.repeat(ours, row), np.repeat(labels, row)) for row in counts]
    assert scores_of_counts(metric, counts, ours, labels) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("label", "answer"), [(0, 0), (1, 1), (0, 1)])
def test_one_class_alone_scores_as_scikit_learn_scores_it(metric: str, label: int, answer: int) -> None:
    labels, ours = np.full(5, label), np.full(5, answer)
    assert scores_of_counts(metric, np.ones((1, 5), dtype=np.int64), ours, labels) == pytest.approx(score(metric, ours, labels))


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlations_of_a_million_samples_are_those_of_scipy(metric: str) -> None:
    ours, _, labels = answers(5, 6, 1_000_000)
    model = Answers.of(ours, labels)
    found = scores_of_counts(metric, model.counts[None], model.given, model.labels)
    assert found == pytest.approx(score(metric, ours, labels), abs=1e-12)


def test_answers_are_counted_by_label_and_answer() -> None:
    model = Answers.of(np.array([0, 2, 2, 2, 1]), np.array([0, 2, 2, 1, 1]))
    assert (model.labels.tolist(), model.given.tolist(), model.counts.tolist()) == ([0, 1, 1, 2], [0, 1, 2, 2], [1, 1, 1, 2])


def test_pairs_are_counted_as_numpy_counts_columns() -> None:
    ours, theirs, labels = answers(7, 8)
    found = Pairs.of(ours, theirs, labels)
    kinds, counts = np.unique(np.stack([labels, ours, theirs]), axis=1, return_counts=True)
    assert np.array_equal(np.stack([found.labels, found.ours, found.theirs]), kinds)
    assert np.array_equal(found.counts, counts)


def test_both_models_are_scored_on_the_same_resamples() -> None:
    ours, theirs, labels = answers(3, 4)
    pairs = Pairs.of(ours, theirs, labels)
    one, other = pairs.both_resampled("accuracy", 50, np.random.default_rng(0))
    assert np.array_equal(one - other, pairs.resampled("accuracy", 50, np.random.default_rng(0)))
    same, again = Pairs.of(ours, ours, labels).both_resampled("macro-f1", 50, np.random.default_rng(0))
    assert np.array_equal(same, again)


@pytest.mark.parametrize("metric", METRICS)
def test_the_difference_is_that_of_the_scores(metric: str) -> None:
    ours, theirs, labels = answers(2, 3)
    expected = score(metric, ours, labels) - score(metric, theirs, labels)
    assert Pairs.of(ours, theirs, labels).difference(metric) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1"])
def test_bootstrap_draws_spread_like_those_drawn_sample_by_sample(metric: str) -> None:
    ours, theirs, labels = answers(3, 4)
    drawn = Pairs.of(ours, theirs, labels).resampled(metric, 20_000, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    rows = (generator.integers(60, size=60) for _ in range(500))
    by_hand = [score(metric, ours[row], labels[row]) - score(metric, theirs[row], labels[row]) for row in rows]
    assert drawn.mean() == pytest.approx(np.mean(by_hand), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(by_hand), rel=0.12)


@pytest.mark.parametrize("metric", ["accuracy", "macro-f1"])
def test_exchanges_spread_like_those_tossed_sample_by_sample(metric: str) -> None:
    ours, theirs, labels = answers(3, 5)
    drawn = Pairs.of(ours, theirs, labels).swapped(metric, 20_000, np.random.default_rng(0))
    generator = np.random.default_rng(1)
    by_hand = []
    for _ in range(500):
        coin = generator.random(60) < 0.5
        one, other = np.where(coin, ours, theirs), np.where(coin, theirs, ours)
        by_hand.append(score(metric, one, labels) - score(metric, other, labels))
    assert drawn.mean() == pytest.approx(0.0, abs=0.005)
    assert drawn.std() == pytest.approx(np.std(by_hand), rel=0.12)


@pytest.mark.parametrize(("predictions", "labels"), [(3, 4), (1, 4), (0, 0)])
def test_predictions_that_do_not_belong_to_the_labels_are_refused(predictions: int, labels: int) -> None:
    ours = np.zeros(predictions, dtype=np.int64)
    with pytest.raises(RequestError, match=rf"predictions(.|\n)*found +{predictions} predictions"):
        Pairs.of(ours, ours, np.zeros(labels, dtype=np.int64))
