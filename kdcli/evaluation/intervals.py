"""How far a score may be from the one on all texts that there are."""

from __future__ import annotations

import numpy as np

from kdcli.evaluation.resampling import Sample
from kdcli.tasks.metric import LEVEL, Metric, Values, check_lengths

_TIMES = 999


def score_interval(metric: Metric, predictions: Values, targets: Values, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a metric over samples, as fractions. Shapes: [n, …] each.

    A share of what is right: Wilson's interval (Wilson 1927), which has a width for a perfect score too. Other metrics: z
    standard errors (z = 1.96) to either side, by the bootstrap of the samples with z²/2 more that are right and as many wrong
    (:meth:`kdcli.evaluation.resampling.Sample.smoothed`, as Wilson's interval is centred), from the lower and the higher of
    the score of the samples and that of the smoothed ones. Wrong more often than it says, above, where an average over classes
    is taken from fewer samples than five of a class or so: that of the classes that happen to occur is a biased figure.

    Raises:
        RequestError: not as many predictions as targets, or none.
    """
    from scipy import stats

    check_lengths(targets, predictions)
    right = metric.right(predictions, targets) if metric.is_share_of_right else None
    if right is not None:
        wilson = stats.binomtest(int(right.sum()), len(right)).proportion_ci(confidence_level=1 - LEVEL, method="wilson")
        return float(wilson.low), float(wilson.high)
    quantile = float(stats.norm.ppf(1 - LEVEL / 2))
    sample = Sample.of(metric, predictions, targets)
    smoothed = sample.smoothed(quantile**2 / 2)
    reach = quantile * float(smoothed.resampled(_TIMES, np.random.default_rng(seed)).std(ddof=1))
    centres = sample.score(), smoothed.score()
    return max(min(centres) - reach, metric.lowest), min(max(centres) + reach, 1.0)
