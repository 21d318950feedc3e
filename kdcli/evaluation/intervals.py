"""How far a score may be from the one on all texts that there are."""

from __future__ import annotations

import numpy as np

from kdcli.evaluation.metrics import Classes
from kdcli.evaluation.power import LEVEL
from kdcli.evaluation.resampling import Answers, check_lengths

_TIMES = 999


def score_interval(metric: str, predictions: Classes, labels: Classes, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a metric over samples, as fractions. Shapes: [n] each.

    Accuracy: Wilson's interval (Wilson 1927), which has a width for a perfect score too. Other metrics: the percentile
    bootstrap (Efron and Tibshirani 1993, chapter 13), which is too narrow where a class has fewer than ten samples or so, and
    of no width where all answers are right.

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    from scipy import stats

    check_lengths(labels, predictions)
    if metric == "accuracy":
        right = stats.binomtest(int((predictions == labels).sum()), len(labels))
        wilson = right.proportion_ci(confidence_level=1 - LEVEL, method="wilson")
        return float(wilson.low), float(wilson.high)
    drawn = Answers.of(predictions, labels).resampled(metric, _TIMES, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
