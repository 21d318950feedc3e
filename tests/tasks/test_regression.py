"""Numbers as targets: metrics under weights, losses, and what a file may write, against scipy, scikit-learn and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_squared_error, r2_score

from kdcli.errors import RequestError
from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.resampling import PairedSample
from kdcli.evaluation.significance import compare_models
from kdcli.tasks.classification import Classification
from kdcli.tasks.kinds import kind_like, kinds
from kdcli.tasks.metric import Floats
from kdcli.tasks.regression import Regression
from kdcli.tasks.target_column import Column

KIND = Regression("similarity")


def column(*cells: str) -> Column:
    return Column("d.csv", "score", cells, range(2, len(cells) + 2))


def numbers(count: int, noise: float, seed: int) -> tuple[Floats, Floats]:
    """Predictions and targets between 0 and 5, in steps of a fifth, so that some are equal."""
    generator = np.random.default_rng(seed)
    gold = np.round(generator.uniform(0, 5, count) * 5) / 5
    return np.round((gold + noise * generator.normal(size=count)) * 5) / 5, gold


BY_OTHERS = {
    "pearson": lambda said, gold: stats.pearsonr(said, gold).statistic,
    "spearman": lambda said, gold: stats.spearmanr(said, gold).statistic,
    "r2": lambda said, gold: r2_score(gold, said),
    "mse": lambda said, gold: mean_squared_error(gold, said),
}


@pytest.mark.parametrize("name", BY_OTHERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_metric_under_weights_is_that_of_the_repeated_rows(name: str, seed: int) -> None:
    said, gold = numbers(40, 0.8, seed)
    weights = np.random.default_rng(seed).multinomial(40, np.full(40, 1 / 40), size=8)
    metric = (KIND.metrics | KIND.errors)[name]
    expected = [BY_OTHERS[name](np.repeat(said, row), np.repeat(gold, row)) for row in weights]
    assert metric.scores(said, gold, weights) == pytest.approx(expected)
    assert metric.score(said, gold) == pytest.approx(BY_OTHERS[name](said, gold))


@pytest.mark.parametrize("name", ["pearson", "spearman", "r2"])
def test_a_side_that_is_always_the_same_scores_nothing(name: str) -> None:
    _, gold = numbers(30, 1.0, 0)
    flat = np.full(30, gold.mean())
    assert KIND.metrics[name].score(flat, gold) == pytest.approx(0.0, abs=1e-12)
    assert KIND.metrics[name].score(gold, np.full(30, 2.0)) == pytest.approx(0.0, abs=1e-12)


def test_correlations_do_not_see_where_numbers_lie_or_how_large_they_are() -> None:
    said, gold = numbers(60, 1.0, 1)
    for name in ("pearson", "spearman"):
        found = KIND.metrics[name].score(said, gold)
        assert KIND.metrics[name].score(1e9 + 1e-3 * said, gold - 1e6) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_losses_equal_those_of_numpy_in_double_precision_and_skip_what_has_no_number(seed: int) -> None:
    generator = np.random.default_rng(seed)
    outputs, gold = generator.normal(size=(7, 1)), generator.normal(size=7)
    gold[[1, 4]] = np.nan
    leaf = torch.tensor(outputs, dtype=torch.float32, requires_grad=True)
    found = KIND.hard_losses(leaf, torch.tensor(gold))
    wanted = np.nan_to_num((outputs[:, 0] - gold) ** 2)
    assert found.detach().numpy() == pytest.approx(wanted, abs=1e-6)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert leaf.grad[:, 0].numpy() == pytest.approx(np.nan_to_num(2 * (outputs[:, 0] - gold)), abs=1e-6)
    assert KIND.labelled(torch.tensor(gold)).tolist() == (~np.isnan(gold)).tolist()


def test_soft_losses_are_of_the_numbers_whatever_the_temperature() -> None:
    ours, theirs = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.5]])
    one, four = (
        KIND.soft_losses(KIND.softened(ours, t), KIND.softened(theirs, t), lambda *_: torch.zeros(2)) for t in (1.0, 4.0)
    )
    assert one.tolist() == four.tolist() == [4.0, 0.25]
    assert not KIND.softens


def test_an_ensemble_is_the_mean_and_a_guess_too() -> None:
    outputs = [np.array([[1.0], [2.0]], np.float32), np.array([[3.0], [5.0]], np.float32)]
    assert KIND.ensemble(outputs).tolist() == [[2.0], [3.5]]
    assert KIND.predictions(KIND.ensemble(outputs)).tolist() == [2.0, 3.5]
    assert KIND.guess(np.array([1.0, 4.0]), 3).tolist() == [2.5] * 3


def test_many_decimal_numbers_look_like_regression_and_few_like_classes() -> None:
    many = column(*(f"{row / 7:.3f}" for row in range(60)))
    assert kind_like(many) is Regression
    assert kind_like(column("1.0", "2.5", "3.0", *["1.0"] * 20)) is Classification
    assert kind_like(column("1", "2", "3", "4")) is Classification
    assert set(kinds()) == {"classification", "regression"}


def test_numbers_are_read_and_what_is_none_is_refused_with_its_line() -> None:
    assert KIND.read(column("1", " 2,5", "-3e-1")).tolist() == [1.0, 2.5, -0.3]
    for cell in ("good", "nan", "inf", "1.2.3"):
        with pytest.raises(RequestError, match=r"d\.csv:3.*is not a number"):
            KIND.read(column("1", cell))


def test_a_column_of_one_number_teaches_nothing() -> None:
    with pytest.raises(RequestError, match="all 3 rows have the same number"):
        Regression.of_column(column("2.5", "2.5", "2.5"))


def test_held_out_rows_are_of_all_sizes() -> None:
    targets = np.random.default_rng(0).exponential(size=200)
    rows = KIND.hold_out(targets, 0.1, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 20
    order = np.argsort(np.argsort(targets))
    assert sorted((order[rows] // 10).tolist()) == list(range(20))


@pytest.mark.parametrize("metric", ["mse", "accuracy"])
def test_an_error_or_a_metric_of_classes_decides_nothing(metric: str) -> None:
    with pytest.raises(RequestError, match=f"--metric {metric}"):
        KIND.metric(metric)


def test_a_model_for_classes_is_refused_and_one_for_a_number_taken_whatever_it_is_called() -> None:
    assert KIND.order_of("m", ("LABEL_0",), "regression") == [0]
    with pytest.raises(RequestError, match="another kind of task"):
        KIND.order_of("m", ("a", "b"), "classification")
    with pytest.raises(RequestError, match="more than one output"):
        KIND.order_of("m", ("a", "b"), "regression")
    with pytest.raises(RequestError, match="another kind of task"):
        Classification.of_names(("a", "b")).order_of("m", ("score",), "regression")


@pytest.mark.parametrize("metric", ["pearson", "spearman", "r2"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(metric: str) -> None:
    """95 % within three standard errors of 200 samples of 150; the truth is the score of 200,000."""
    said, gold = numbers(200_000, 1.2, 99)
    truth = KIND.metrics[metric].score(said, gold)
    held = 0
    for seed in range(200):
        low, high = score_interval(KIND.metrics[metric], *numbers(150, 1.2, seed), seed)
        held += low <= truth <= high
    assert 0.90 <= held / 200 <= 0.995


def test_models_that_differ_are_told_apart_and_the_same_model_is_not() -> None:
    good, gold = numbers(300, 0.5, 1)
    generator = np.random.default_rng(2)
    bad = gold + 2.0 * generator.normal(size=300)
    (found,) = compare_models(KIND.metrics["pearson"], {"good": good, "bad": bad}, gold)
    assert found.significant
    assert found.difference == pytest.approx(BY_OTHERS["pearson"](good, gold) - BY_OTHERS["pearson"](bad, gold))
    assert (found.only_ours, found.only_theirs) == (None, None)
    assert found.smallest is not None
    assert 0 < found.smallest < 0.3
    (same,) = compare_models(KIND.metrics["pearson"], {"a": good, "b": good.copy()}, gold)
    assert same.p_value == 1.0
    assert PairedSample.of(KIND.metrics["pearson"], good, good, gold).difference() == 0.0


def test_a_file_that_says_the_same_of_all_texts_has_collapsed() -> None:
    ours = np.linspace(0, 5, 20, dtype=np.float32)[:, None]
    assert KIND.collapsed(ours, np.full_like(ours, 2.5)) is not None
    assert KIND.collapsed(ours, ours + 0.001) is None
    assert KIND.changed(ours, ours + 0.001).sum() == 0
    assert KIND.changed(ours, ours + 0.5).all()
