"""Whether a model is right as often as it claims to be, and the temperature that would mend it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.evaluation.metrics import Classes
from kdcli.evaluation.resampling import Floats, check_lengths

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0


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
        nll: negative log-likelihood of the labels, in nats per sample.
        bins: of the reliability diagram, from the least confident to the most.
        temperature: what the logits should be divided by; above 1 the model is too sure of itself.
        ece_after: with the logits divided by it, on the samples that it was found on, and so a little flattering.
        nll_after: likewise.
    """

    ece: float
    nll: float
    bins: tuple[Bin, ...]
    temperature: float
    ece_after: float
    nll_after: float


def calibrate(logits: NDArray[np.float32], labels: Classes) -> Calibration:
    """Measure calibration, before and after the temperature that fits best.

    Shapes: logits [n, C], labels [n].

    Raises:
        RequestError: not as many logits as labels, or none.
    """
    check_lengths(labels, logits.argmax(-1))
    temperature = best_temperature(logits, labels)
    cooled = logits / temperature
    return Calibration(
        ece=expected_calibration_error(reliability(logits, labels)),
        nll=negative_log_likelihood(logits, labels),
        bins=reliability(logits, labels),
        temperature=temperature,
        ece_after=expected_calibration_error(reliability(cooled, labels)),
        nll_after=negative_log_likelihood(cooled, labels),
    )


def reliability(logits: NDArray[np.float32], labels: Classes, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal width by the probability of the predicted class. Shapes: logits [n, C], labels [n]."""
    confidence = np.exp(_log_probabilities(logits)).max(-1)
    right = logits.argmax(-1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence)
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


def _bin(low: float, high: float, confidence: Floats, right: NDArray[np.bool_]) -> Bin:
    if len(right) == 0:
        return Bin(float(low), float(high), 0, None, None)
    return Bin(float(low), float(high), len(right), float(confidence.mean()), float(right.mean()))


def _log_probabilities(logits: NDArray[np.float32]) -> Floats:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logits.astype(np.float64), axis=-1))
