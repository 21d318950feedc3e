"""Calibration against scikit-learn, and against logits whose truth is known."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from kdcli.errors import RequestError
from kdcli.tasks.calibration import (
    COLDEST,
    HOTTEST,
    best_temperature,
    calibrate,
    ece_upper,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from kdcli.tasks.class_metrics import Classes


def honest(count: int, classes: int = 3, seed: int = 0) -> tuple[NDArray[np.float32], Classes]:
    """Logits, and labels that are drawn with just the probabilities that they say."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=1.5, size=(count, classes)).astype(np.float32)
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(-1)
    return logits, labels


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def logits_of(confidence: list[float]) -> NDArray[np.float32]:
    """Two classes; class 0 has the probability given."""
    chance = np.array(confidence)
    return np.asarray(np.log(np.stack([chance, 1 - chance], axis=1)), dtype=np.float32)


def test_the_bins_equal_those_of_scikit_learn() -> None:
    logits, labels = honest(500)
    right = logits.argmax(-1) == labels
    accuracy, confidence = calibration_curve(right, probabilities(logits).max(-1), n_bins=15)
    filled = [each for each in reliability(logits, labels) if each.count]
    assert [each.accuracy for each in filled] == pytest.approx(list(accuracy))
    assert [each.confidence for each in filled] == pytest.approx(list(confidence))


def test_bins_are_of_equal_width_and_hold_every_sample_once() -> None:
    bins = reliability(*honest(200))
    assert [each.low for each in bins] == pytest.approx([index / 15 for index in range(15)])
    assert [each.high for each in bins] == pytest.approx([(index + 1) / 15 for index in range(15)])
    assert sum(each.count for each in bins) == 200
    assert (bins[0].count, bins[0].confidence, bins[0].accuracy) == (0, None, None)


def test_the_error_equals_the_number_worked_out_by_hand() -> None:
    """Two samples at 0.9 of which one is right (gap 0.4), two at 0.7 of which both are right (gap 0.3)."""
    bins = reliability(logits_of([0.9, 0.9, 0.7, 0.7]), np.array([0, 1, 0, 0]))
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.3)


def test_a_model_that_is_sure_and_right_has_no_error() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], dtype=np.float32)
    bins = reliability(logits, np.array([0, 1]))
    assert expected_calibration_error(bins) == 0.0
    assert bins[-1].count == 2


def test_an_honest_model_has_next_to_no_error_and_needs_no_temperature() -> None:
    found = calibrate(*honest(50_000))
    assert found.ece < 0.01
    assert found.temperature == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_the_temperature_undoes_what_the_logits_were_multiplied_by(factor: float) -> None:
    logits, labels = honest(20_000)
    found = calibrate(logits * np.float32(factor), labels)
    assert found.temperature == pytest.approx(factor, rel=0.03)
    assert found.ece > 0.1
    assert found.ece_after is not None
    assert found.ece_after < 0.015
    assert found.nll_after == pytest.approx(negative_log_likelihood(logits, labels), abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_temperature_makes_the_labels_likelier(seed: int) -> None:
    logits, labels = honest(60, seed=seed)
    found = calibrate(logits, labels)
    others = [negative_log_likelihood(logits / np.float32(each), labels) for each in np.geomspace(COLDEST, HOTTEST, 200)]
    assert found.nll_after is not None
    assert found.nll_after <= min(others) + 1e-6
    assert found.nll_after <= found.nll


def test_the_likelihood_equals_that_of_scikit_learn() -> None:
    logits, labels = honest(100)
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, probabilities(logits)))


def test_a_model_that_is_always_right_gets_the_lowest_temperature_and_one_always_wrong_the_highest() -> None:
    logits = logits_of([0.9, 0.7, 0.8])
    assert best_temperature(logits, np.array([0, 0, 0])) == pytest.approx(COLDEST, rel=0.01)
    assert best_temperature(logits, np.array([1, 1, 1])) == pytest.approx(HOTTEST, rel=0.01)


def test_logits_that_do_not_belong_to_the_labels_are_refused() -> None:
    logits, labels = honest(20)
    with pytest.raises(RequestError, match="do not belong to the labels"):
        calibrate(logits, labels[:-1])


def test_the_bound_is_that_of_the_bootstrap_by_scipy() -> None:
    logits, labels = honest(150)
    logits *= np.float32(2)

    def error(rows: Classes) -> float:
        return expected_calibration_error(reliability(logits[rows], labels[rows]))

    found = stats.bootstrap(
        (np.arange(150),), error, vectorized=False, n_resamples=999, method="percentile", confidence_level=0.95, rng=0
    )
    assert ece_upper(logits, labels) == pytest.approx(found.confidence_interval.high, abs=0.01)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_bound_lies_above_the_error_and_nears_it_with_more_samples(factor: float) -> None:
    few, many = (calibrate(logits * np.float32(factor), labels) for logits, labels in (honest(200), honest(20_000)))
    assert few.ece < few.ece_high
    assert many.ece < many.ece_high < few.ece_high
    assert many.ece_high - many.ece < 0.02


def test_the_bound_is_the_same_every_time_and_depends_on_the_seed() -> None:
    assert ece_upper(*honest(80)) == ece_upper(*honest(80))
    assert ece_upper(*honest(80)) != ece_upper(*honest(80), seed=1)


def test_the_bound_is_the_same_however_many_resamples_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ece_upper(*honest(50))
    monkeypatch.setattr("kdcli.tasks.calibration._AT_ONCE", 7 * 50)
    assert ece_upper(*honest(50)) == whole


def test_the_bound_of_ten_thousand_samples_takes_no_second() -> None:
    logits, labels = honest(10_000)
    begin = perf_counter()
    ece_upper(logits, labels)
    assert perf_counter() - begin < 1.5  # 0.1 s on an idle core


def test_one_sample_has_its_own_error_as_bound() -> None:
    found = calibrate(logits_of([0.9]), np.array([0]))
    assert found.ece == found.ece_high == pytest.approx(0.1, abs=1e-6)


def test_a_class_that_does_not_occur_is_no_obstacle() -> None:
    logits, labels = honest(100)
    found = calibrate(logits[labels != 2], labels[labels != 2])
    assert np.isfinite([found.ece, found.ece_high, found.nll]).all()
    assert 0 <= found.ece <= found.ece_high <= 1


def test_the_bound_refuses_logits_that_do_not_belong_to_the_labels() -> None:
    logits, labels = honest(20)
    with pytest.raises(RequestError, match="do not belong to the labels"):
        ece_upper(logits, labels[:-1])


def test_a_temperature_is_recommended_where_it_helps_on_samples_held_out_and_not_elsewhere() -> None:
    generator = np.random.default_rng(3)
    honest = generator.normal(scale=1.5, size=(2000, 3)).astype(np.float32)
    labels = (honest + generator.gumbel(size=honest.shape)).argmax(-1)
    found = calibrate(honest * np.float32(3.0), labels)
    assert found.mended is not None
    assert found.mended < found.ece / 3
    assert found.mended == found.ece_held_out


def test_a_temperature_that_makes_the_calibration_error_worse_is_not_recommended() -> None:
    """All labels equally likely and all logits the same sign: the likelihood gains by chance what the error loses."""
    worse = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        logits = generator.normal(size=(60, 4)).astype(np.float32)
        labels = (logits + generator.gumbel(size=logits.shape)).argmax(-1)
        found = calibrate(logits, labels)
        if found.ece_after is not None and found.ece_after >= found.ece:
            worse += 1
        if found.mended is not None:
            assert found.mended < found.ece
            assert found.nll_held_out is not None
            assert found.nll_held_out < found.nll
    assert worse > 0


@pytest.mark.parametrize("right", [True, False])
def test_where_the_search_for_a_temperature_ends_at_its_limit_there_is_none(right: bool) -> None:
    logits = np.array([[2.0, 0.0]] * 20, dtype=np.float32)
    found = calibrate(logits, np.zeros(20, dtype=np.int64) if right else np.ones(20, dtype=np.int64))
    assert (found.temperature, found.ece_after, found.nll_after, found.mended) == (None, None, None, None)


def test_a_single_sample_has_no_halves() -> None:
    assert calibrate(np.array([[0.3, 0.1]], dtype=np.float32), np.array([0])).mended is None
