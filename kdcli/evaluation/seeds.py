"""Whether two recipes differ, or only the seeds that they were trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kdcli.errors import Problem, RequestError
from kdcli.evaluation.power import smallest_t_difference
from kdcli.evaluation.significance import Difference, corrected
from kdcli.tasks.metric import LEVEL, Floats

_REJECTING_FLIPS = 6
_TIMES = 4999
_NO_SPREAD = 1e-12


class RecipeDifference(Difference):
    """How two recipes differ over the seeds of their training, on one split.

    The difference is that of the means over the seeds that the test uses. It says nothing about other samples than those
    of the split.

    Attributes:
        seeds: how many runs of ours and of theirs the test uses.
        paired: whether runs of the same seed are held against each other.
    """

    seeds: tuple[int, int]
    paired: bool

    @property
    def _who(self) -> str:
        return "These seeds"


@dataclass(frozen=True)
class _Spread:
    """Standard error of a difference of means and its degrees of freedom; false where nothing varies."""

    error: float
    freedom: float

    def __bool__(self) -> bool:
        return self.error > _NO_SPREAD

    def reach(self, level: float) -> float:
        """How far the interval goes to either side that is wrong in a share ``level`` of all cases."""
        from scipy import stats

        return float(stats.t.ppf(1 - level / 2, self.freedom)) * self.error

    def p_value(self, difference: float) -> float:
        """Of no difference, by the two-sided t test."""
        from scipy import stats

        return float(2 * stats.t.sf(abs(difference) / self.error, self.freedom))


@dataclass(frozen=True)
class _Test:
    """Name, reason and p-value of a test of seeds."""

    name: str
    why: str
    p_value: float


def compare_recipes(
    metric: str,
    scores: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> list[RecipeDifference]:
    """Compare recipes that were trained with several seeds each, with Holm's correction over all comparisons.

    Where the seeds of the one are among those of the other, runs of the same seed are paired; otherwise Welch's test
    compares the two groups. From eight pairs on (more where several comparisons share the level) the signs of their
    differences are flipped instead of assuming a normal distribution; with fewer, flips are too coarse (with fewer than six
    they never reach 5 %), and the paired t test is taken.

    Args:
        metric: what the scores are, for the sentence.
        scores: name → seed → score as a fraction.
        pairs: the names to compare, ours first; None compares each with each.

    Raises:
        RequestError: a recipe with fewer than two seeds.
    """
    for name, of_seeds in scores.items():
        if len(of_seeds) < 2:
            problem = "has too few runs to tell a recipe from its seed"
            raise RequestError(Problem(name, problem, "at least two seeds", str(len(of_seeds)), "--seed N for another run"))
    chosen = list(combinations(scores, 2)) if pairs is None else list(pairs)
    level = LEVEL / max(len(chosen), 1)
    return corrected([_compare(metric, ours, theirs, scores, level) for ours, theirs in chosen])


def _compare(metric: str, ours: str, theirs: str, scores: Mapping[str, Mapping[int, float]], level: float) -> RecipeDifference:
    shared = sorted(scores[ours].keys() & scores[theirs].keys())
    paired = len(shared) >= 2 and len(shared) == min(len(scores[ours]), len(scores[theirs]))
    one = np.array([scores[ours][seed] for seed in (shared if paired else scores[ours])])
    other = np.array([scores[theirs][seed] for seed in (shared if paired else scores[theirs])])
    spread = _spread(one - other) if paired else _spread_of_two(one, other)
    test = _paired_test(one, other, spread, level) if paired else _unpaired_test(one, other, spread)
    difference, reach = float(one.mean() - other.mean()), spread.reach(level) if spread else None
    return RecipeDifference(
        metric=metric,
        ours=ours,
        theirs=theirs,
        difference=difference,
        low=None if reach is None else difference - reach,
        high=None if reach is None else difference + reach,
        smallest=smallest_t_difference(spread.error, spread.freedom, level) if spread else None,
        test=test.name,
        why=test.why,
        p_value=test.p_value,
        seeds=(len(one), len(other)),
        paired=paired,
    )


def _spread(differences: Floats) -> _Spread:
    return _Spread(float(differences.std(ddof=1)) / len(differences) ** 0.5, len(differences) - 1)


def _spread_of_two(ours: Floats, theirs: Floats) -> _Spread:
    """Welch's standard error and Satterthwaite's degrees of freedom."""
    parts = np.array([scores.var(ddof=1) / len(scores) for scores in (ours, theirs)])
    weights = parts**2 / np.array([len(ours) - 1, len(theirs) - 1])
    return _Spread(float(parts.sum() ** 0.5), float(parts.sum() ** 2 / weights.sum()) if weights.sum() else 1.0)


def _paired_test(ours: Floats, theirs: Floats, spread: _Spread, level: float) -> _Test:
    from scipy import stats

    if not spread:
        return _no_test(f"the difference is the same with each of {len(ours)} seeds")
    same = f"they share {len(ours)} seeds"
    if 2 ** (len(ours) - 1) * level < _REJECTING_FLIPS:
        why = f"{same}, too few to do without taking their differences as normal"
        return _Test("Paired t test", why, spread.p_value(float((ours - theirs).mean())))
    found = stats.permutation_test(
        (ours - theirs,), np.mean, permutation_type="samples", n_resamples=_TIMES, vectorized=True, rng=0
    )
    return _Test("Sign-flip permutation test", f"{same}, enough to assume no distribution", float(found.pvalue))


def _unpaired_test(ours: Floats, theirs: Floats, spread: _Spread) -> _Test:
    if not spread:
        return _no_test("each of the two scores the same with all of its seeds")
    p_value = spread.p_value(float(ours.mean() - theirs.mean()))
    return _Test("Welch's t test", "they have different seeds and may spread differently", p_value)


def _no_test(what: str) -> _Test:
    """Without any spread: how far a difference varies between seeds is what it is held against."""
    return _Test(
        "No test",
        f"{what}, so that nothing shows how far that may vary by chance",
        1.0,
    )
