"""Whether a model is right as often as it claims to be, and the temperature that would mend it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.metric import LEVEL, Floats, check_lengths

BINS = 15
_TIMES = 1000
_AT_ONCE = 2_000_000
COLDEST, HOTTEST = 0.05, 20.0
_INSIDE = 1.25  # where the likelihood is flat, the search stops short of its limit


@dataclass(frozen=True)
class Bin:
    """The samples whose confidence lies above ``low`` and not above ``high``.

    Attributes:
        low: lower edge, from 0 to 1, as all of these.
        high: upper edge.
        count: how many samples.
        confidence: their mean confidence, None where there are none.
        accuracy: the share of them that is right, None where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far a model's confidence is from its accuracy.

    Attributes:
        ece: expected calibration error, as a fraction (:func:`expected_calibration_error`).
        ece_high: what it is at most on all texts that there are, with 97.5 % confidence (:func:`ece_upper`).
        nll: negative log-likelihood of the labels, in nats per sample.
        bins: of the reliability diagram, from the least confident to the most.
        temperature: what the logits should be divided by; above 1 the model is too sure of itself. None where these samples
            show none: the search ended at its limit, as it does where all answers are right, or none has to do with the labels.
        ece_after: with the logits divided by it, on the samples that it was found on, and so a little flattering; None
            without a temperature, as the next three.
        nll_after: likewise.
        ece_held_out: the calibration error of each half of the samples with the temperature found on the other half, over both.
        nll_held_out: likewise.
    """

    ece: float
    ece_high: float
    nll: float
    bins: tuple[Bin, ...]
    temperature: float | None
    ece_after: float | None
    nll_after: float | None
    ece_held_out: float | None = None
    nll_held_out: float | None = None

    @property
    def mended(self) -> float | None:
        """The calibration error with the logits divided by the temperature, where that helps: on samples held out, by both."""
        if self.ece_held_out is None or self.nll_held_out is None:
            return None
        return self.ece_held_out if self.ece_held_out < self.ece and self.nll_held_out < self.nll else None


def calibrate(logits: NDArray[np.float32], labels: Classes) -> Calibration:
    """Measure calibration, before and after the temperature that fits best.

    Shapes: logits [n, C], labels [n].

    Raises:
        RequestError: not as many logits as labels, or none.
    """
    check_lengths(labels, logits.argmax(-1))
    temperature = found_temperature(logits, labels)
    cooled, held_out = None, None
    if temperature is not None:
        cooled, held_out = logits / temperature, _held_out(logits, labels)
    return Calibration(
        ece=expected_calibration_error(reliability(logits, labels)),
        ece_high=ece_upper(logits, labels),
        nll=negative_log_likelihood(logits, labels),
        bins=reliability(logits, labels),
        temperature=temperature,
        ece_after=None if cooled is None else expected_calibration_error(reliability(cooled, labels)),
        nll_after=None if cooled is None else negative_log_likelihood(cooled, labels),
        ece_held_out=None if held_out is None else expected_calibration_error(reliability(held_out, labels)),
        nll_held_out=None if held_out is None else negative_log_likelihood(held_out, labels),
    )


def reliability(logits: NDArray[np.float32], labels: Classes, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal width by the probability of the predicted class. Shapes: logits [n, C], labels [n]."""
    confidence, right = _predicted(logits, labels)
    place, edges = _bin_of(confidence, bins), _edges(bins)
    return tuple(
        _bin(edges[index], edges[index + 1], confidence[place == index], right[place == index]) for index in range(bins)
    )


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """How far confidence is from accuracy, averaged over the samples bin by bin, as a fraction.

    Naeini et al. 2015; Guo et al. 2017, eq. 3, which take 15 bins. Small samples make it larger than it is.
    """
    total = sum(each.count for each in bins)
    return sum(
        each.count / total * abs(each.accuracy - each.confidence)
        for each in bins
        if each.accuracy is not None and each.confidence is not None
    )


def ece_upper(logits: NDArray[np.float32], labels: Classes, seed: int = 0) -> float:
    """Upper 97.5 % bound of the expected calibration error, by the percentile bootstrap over samples, as a fraction.

    On the safe side: noise within the bins makes the error of a sample larger than that of all texts, and the error of a
    resample larger again, so that the bound holds more often than it says, the more so the fewer samples there are.

    Shapes: logits [n, C], labels [n].

    Raises:
        RequestError: not as many logits as labels, or none.
    """
    check_lengths(labels, logits.argmax(-1))
    confidence, right = _predicted(logits, labels)
    place, gap, samples = _bin_of(confidence, BINS), right - confidence, len(labels)
    generator = np.random.default_rng(seed)
    rows = max(1, min(_TIMES, _AT_ONCE // samples))  # so many resamples fit into memory together
    errors: list[Floats] = []
    for first in range(0, _TIMES, rows):
        count = min(rows, _TIMES - first)
        drawn = generator.integers(samples, size=(count, samples))
        cells = place[drawn] + BINS * np.arange(count)[:, None]
        gaps = np.bincount(cells.ravel(), gap[drawn].ravel(), BINS * count).reshape(count, BINS)
        errors.append(np.abs(gaps).sum(-1) / samples)
    return float(np.quantile(np.concatenate(errors), 1 - LEVEL / 2))


def negative_log_likelihood(logits: NDArray[np.float32], labels: Classes) -> float:
    """Mean over the samples, in nats. Shapes: logits [n, C], labels [n]."""
    return float(-_log_probabilities(logits)[np.arange(len(labels)), labels].mean())


def best_temperature(logits: NDArray[np.float32], labels: Classes) -> float:
    """The temperature that makes the labels most likely (Guo et al. 2017, §4.2), from 0.05 to 20.

    At 0.05 the model is always right and can't be too sure of itself; at 20 its logits say nothing about these labels.
    Shapes: logits [n, C], labels [n].
    """
    from scipy import optimize

    found = optimize.minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits / np.exp(log_temperature), labels),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


def found_temperature(logits: NDArray[np.float32], labels: Classes) -> float | None:
    """The best temperature, None where the search for it ended at its limit. Shapes: logits [n, C], labels [n]."""
    temperature = best_temperature(logits, labels)
    return temperature if COLDEST * _INSIDE < temperature < HOTTEST / _INSIDE else None


def _held_out(logits: NDArray[np.float32], labels: Classes) -> NDArray[np.float32] | None:
    """Each half's logits divided by the temperature of the other half [n, C]; None where a half has none."""
    if len(labels) < 2:
        return None
    first = np.random.default_rng(0).permutation(len(labels)) < len(labels) // 2
    cooled = np.empty_like(logits)
    for half in (first, ~first):
        temperature = found_temperature(logits[~half], labels[~half])
        if temperature is None:
            return None
        cooled[half] = logits[half] / temperature
    return cooled


def _predicted(logits: NDArray[np.float32], labels: Classes) -> tuple[Floats, NDArray[np.bool_]]:
    """Probability of the predicted class, and whether it is the right one; [n] each."""
    return np.exp(_log_probabilities(logits)).max(-1), np.asarray(logits.argmax(-1) == labels)


def _edges(bins: int) -> Floats:
    return np.linspace(0.0, 1.0, bins + 1)


def _bin_of(confidence: Floats, bins: int) -> NDArray[np.int64]:
    return np.asarray(np.searchsorted(_edges(bins)[1:-1], confidence))


def _bin(low: float, high: float, confidence: Floats, right: NDArray[np.bool_]) -> Bin:
    if len(right) == 0:
        return Bin(float(low), float(high), 0, None, None)
    return Bin(float(low), float(high), len(right), float(confidence.mean()), float(right.mean()))


def _log_probabilities(logits: NDArray[np.float32]) -> Floats:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logits.astype(np.float64), axis=-1))
