"""Two models' scores on the same samples, and how far both may be from those on all texts that there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.evaluation.resampling import PairedSample
from kdcli.tasks.metric import LEVEL, Metric, Values

Interval = tuple[float, float]

_TIMES = 1999
_NEXT_TO_NOTHING = 1e-9


@dataclass(frozen=True)
class PairedScores:
    """Our score and theirs, and how they vary together over samples, by one bootstrap of both.

    Difference and share come from the same three figures, so that they cannot contradict each other: the share's interval has
    100 % inside if and only if the difference's has 0. The samples are resampled with (z² + 1)/2 more that we alone get right,
    and as many that they alone get right (:meth:`kdcli.evaluation.resampling.PairedSample.smoothed`), where z is the normal
    quantile of the level: z²/2 let the interval of two models that answer all n samples alike reach to z²/n either way, as the
    score interval of paired proportions does (Tango 1998), and half a sample is for what comes in whole ones.

    Attributes:
        metric: what both are scored by.
        ours: our score on the samples, as a fraction.
        theirs: the other model's.
        variances: of our score, and of theirs.
        covariance: of the two.
        quantile: z, of the normal distribution at the level of the intervals.
    """

    metric: Metric
    ours: float
    theirs: float
    variances: tuple[float, float]
    covariance: float
    quantile: float

    @classmethod
    def of(
        cls, metric: Metric, ours: Values, theirs: Values, targets: Values, level: float = LEVEL, seed: int = 0
    ) -> PairedScores:
        """Score predictions by targets, [n, …] each, for intervals that are wrong in a share ``level`` of all cases.

        Raises:
            RequestError: not as many predictions as targets, or none.
        """
        from scipy import stats

        quantile = float(stats.norm.ppf(1 - level / 2))
        pairs = PairedSample.of(metric, ours, theirs, targets)
        drawn = pairs.smoothed((quantile**2 + 1) / 2).both_resampled(_TIMES, np.random.default_rng(seed))
        spread = np.cov(*drawn)
        variances = float(spread[0, 0]), float(spread[1, 1])
        return cls(metric, *pairs.both(), variances, float(spread[0, 1]), quantile)

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return float(max(sum(self.variances) - 2 * self.covariance, 0.0) ** 0.5)

    def difference_interval(self) -> Interval:
        """Of our score minus theirs: so many standard errors to either side, as far as the metric goes."""
        difference, reach, most = self.ours - self.theirs, self.quantile * self.error, 1.0 - self.metric.lowest
        return max(difference - reach, -most), min(difference + reach, most)

    def share_interval(self) -> Interval | None:
        """Of our score divided by theirs: all shares s for which our score minus s times theirs may be 0 (Fieller 1954).

        None where their score is not clearly above 0: what is divided by may be nothing, and the share anything.
        """
        (of_ours, of_theirs), square = self.variances, self.quantile**2
        leading = self.theirs**2 - square * of_theirs
        if self.theirs <= 0 or leading <= 0:
            return None
        middle = self.ours * self.theirs - square * self.covariance
        root = max(middle**2 - leading * (self.ours**2 - square * of_ours), 0.0) ** 0.5
        low = (middle - root) / leading
        return low if self.metric.lowest < 0 else max(low, 0.0), (middle + root) / leading


def agreeing(interval: Interval, found: float, shown: bool, nothing: float = 0.0) -> Interval:
    """An interval that says of ``nothing`` (no difference) what the test says.

    A test decides about no difference, an interval about every difference; both hold their level, and where they disagree it
    is by a hair. The interval gives way at this one point: it ends there where the test shows no difference, and just before
    it where the test does.

    Args:
        interval: as it was computed.
        found: what was observed, between its ends.
        shown: whether the test shows a difference.
        nothing: 0 for a difference, 1 for a share.
    """
    low, high = interval
    if not shown:
        return min(low, nothing), max(high, nothing)
    return (max(low, nothing + _NEXT_TO_NOTHING), high) if found > nothing else (low, min(high, nothing - _NEXT_TO_NOTHING))
