"""How far a score may be from the one on all texts that there are."""

from __future__ import annotations

import numpy as np

from kdcli.evaluation.metrics import Classes
from kdcli.evaluation.paired import lowest_score
from kdcli.evaluation.power import LEVEL
from kdcli.evaluation.resampling import Answers, check_lengths

_TIMES = 999


def score_interval(metric: str, predictions: Classes, labels: Classes, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a metric over samples, as fractions. Shapes: [n] each.

    Accuracy: Wilson's interval (Wilson 1927), which has a width for a perfect score too. Other metrics: z standard errors (z =
    1.96) to either side, by the bootstrap of the samples with z²/2 more that are right and as many that are wrong
    (:meth:`kdcli.evaluation.resampling.Answers.smoothed`, as Wilson's interval is centred), from the lower and the higher of
    the score of the samples and that of the smoothed ones. Wrong more often than it says, above, where an average over classes
    is taken from fewer samples than five of a class or so: that of the classes that happen to occur is a biased figure.

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    from scipy import stats

    check_lengths(labels, predictions)
    if metric == "accuracy":
        right = stats.binomtest(int((predictions == labels).sum()), len(labels))
        wilson = right.proportion_ci(confidence_level=1 - LEVEL, method="wilson")
        return float(wilson.low), float(wilson.high)
    quantile = float(stats.norm.ppf(1 - LEVEL / 2))
    answers = Answers.of(predictions, labels)
    smoothed = answers.smoothed(metric, quantile**2 / 2)
    reach = quantile * float(smoothed.resampled(metric, _TIMES, np.random.default_rng(seed)).std(ddof=1))
    centres = answers.score(metric), smoothed.score(metric)
    return max(min(centres) - reach, lowest_score(metric)), min(max(centres) + reach, 1.0)
