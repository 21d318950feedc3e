"""What a number of samples or seeds can show: how large a difference has to be to be found four times out of five."""

from __future__ import annotations

import numpy as np

LEVEL = 0.05
POWER = 0.8


def smallest_accuracy_difference(samples: int, differing: float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest difference in accuracy that McNemar's exact test finds with that power, as a fraction.

    A larger difference than the models differ in at all means that they differ on as many samples, all one way. 1.0 where
    there are too few samples for any difference.

    Args:
        samples: how many there are.
        differing: the share of samples that one model alone gets right.
        level: of the test.
        power: how often the difference is to be found.
    """
    from scipy import optimize

    def surplus(difference: float) -> float:
        return mcnemar_power(samples, max(differing, difference), difference, level) - power

    return float(optimize.brentq(surplus, 0.0, 1.0, xtol=1e-6)) if surplus(1.0) > 0 else 1.0


def mcnemar_power(samples: int, differing: float, difference: float, level: float = LEVEL) -> float:
    """How often McNemar's exact test finds a difference in accuracy, worked out over all outcomes, as a fraction.

    Args:
        samples: how many there are.
        differing: the share of samples that one model alone gets right.
        difference: of the two accuracies, as a fraction, at most ``differing``.
        level: of the test.
    """
    from scipy import stats

    first, last = stats.binom.ppf([1e-9, 1 - 1e-9], samples, differing)
    numbers = np.arange(first, last + 1)  # of samples that one model alone gets right
    edges = stats.binom.ppf(level / 2, numbers, 0.5)
    edges = np.where(stats.binom.cdf(edges, numbers, 0.5) <= level / 2, edges, edges - 1)
    share = 0.5 + difference / (2 * differing) if differing else 0.5
    found = stats.binom.cdf(edges, numbers, share) + stats.binom.sf(numbers - edges - 1, numbers, share)
    return float((stats.binom.pmf(numbers, samples, differing) * found).sum())


def smallest_t_difference(error: float, freedom: float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest difference that a two-sided t test finds with that power, in the units of the error.

    Args:
        error: standard error of the difference.
        freedom: degrees of freedom.
        level: of the test.
        power: how often the difference is to be found.
    """
    from scipy import optimize, stats

    edge = float(stats.t.ppf(1 - level / 2, freedom))
    errors = optimize.brentq(lambda shift: stats.nct.sf(edge, freedom, shift) - power, 0.0, 20 * edge)
    return error * float(errors)
