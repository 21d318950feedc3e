"""What a number of samples or seeds can show: how large a difference has to be to be found four times out of five."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kdcli.evaluation.resampling import PairedSample
from kdcli.tasks.metric import LEVEL, Values

POWER = 0.8
_TIMES = 400


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


def smallest_score_difference(pairs: PairedSample, level: float = LEVEL, power: float = POWER, seed: int = 0) -> float:
    """The smallest difference by any metric that a paired permutation test finds with that power, as a fraction.

    What Connor (1987) does for accuracies, d = z₁ s₀ + z₂ s₁, with standard errors of the difference by the bootstrap: s₀ where
    the answers are exchangeable, s₁ where they differ by d. They come to differ in that the samples which one model alone gets
    right become the other's, one after another; where that is not enough, or there are none, in that our model loses samples
    that both get right. 1.0 where there are too few samples for any difference. Where predictions are never just right, s₁ is
    taken from the answers as they are.

    Args:
        pairs: the answers observed.
        level: of the test.
        power: how often the difference is to be found.
        seed: of the resampling.
    """
    from scipy import optimize, stats

    to_reject, to_find = stats.norm.ppf(1 - level / 2), stats.norm.ppf(power)

    def spread(sample: PairedSample) -> float:
        return float(sample.resampled(_TIMES, np.random.default_rng(seed)).std())

    if pairs.metric.right(pairs.ours, pairs.targets) is None:
        return min(1.0, float(to_reject * spread(pairs.exchangeable()) + to_find * spread(pairs)))

    def surplus(shift: float) -> float:
        world = _shifted(pairs, shift)
        return float(abs(world.difference()) - to_reject * spread(world.exchangeable()) - to_find * spread(world))

    first = 1.0 if surplus(1.0) <= 0 else 0.0
    least = first + 0.5 / pairs.size  # with no difference at all there is no spread either
    if surplus(2.0) <= 0 or surplus(least) >= 0:
        return 1.0
    found = optimize.brentq(surplus, least, first + 1.0, xtol=1e-4)
    return abs(_shifted(pairs, float(found)).difference())


def _shifted(pairs: PairedSample, shift: float) -> PairedSample:
    """The answers as they are where the other model is better.

    Args:
        pairs: the answers observed.
        shift: from 0 to 1 the share of samples that one model alone gets right which are all the other model's, the rest being
            shared equally; from 1 to 2, less 1, the share of the samples that both get right which our model loses.
    """
    right, also = (pairs.metric.right(said, pairs.targets) for said in (pairs.ours, pairs.theirs))
    assert right is not None
    assert also is not None
    weights = pairs.counts.astype(np.float64)
    one_way, lost = np.clip([shift, shift - 1.0], 0.0, 1.0)
    moved = np.where(right & ~also, (1 + one_way) / 2, np.where(also & ~right, (1 - one_way) / 2, 0.0)) * weights
    world = replace(pairs, counts=weights - moved).joined(pairs.targets, pairs.theirs, pairs.ours, moved)
    agreed = right & also if (right & also).any() else ~right & ~also
    targets, ours, theirs, share = (values[agreed] for values in (pairs.targets, pairs.ours, pairs.theirs, weights * lost))
    mistaken = pairs.metric.mistaken(targets, among=(pairs.targets, pairs.ours, pairs.theirs))
    assert mistaken is not None
    was_right = right[agreed]  # else the other model comes to be right
    world = replace(
        world, counts=world.counts - np.concatenate([np.where(agreed, weights * lost, 0.0), np.zeros(len(weights))])
    )
    return world.joined(targets, _where(was_right, mistaken, ours), _where(was_right, theirs, targets), share)


def _where(chosen: NDArray[np.bool_], first: Values, second: Values) -> Values:
    """Rows of the one or of the other. Shapes: chosen [n], first, second [n, …]."""
    return np.where(chosen.reshape(-1, *[1] * (first.ndim - 1)), first, second)


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
