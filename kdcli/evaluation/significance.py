"""Whether two models really differ, or only on these samples: intervals, tests, and what the samples can show at all.

All of it is about the models as they are: another seed of the same recipe is another model (:mod:`kdcli.evaluation.seeds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field

from kdcli.evaluation.paired import Interval, PairedScores, agreeing
from kdcli.evaluation.power import smallest_accuracy_difference, smallest_score_difference
from kdcli.evaluation.resampling import PairedSample
from kdcli.tasks.metric import LEVEL, Metric, Values, check_lengths

_TIMES = 1999


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two accuracies: of the samples that one model alone gets right, are half each one's?

    McNemar 1947; exact and two-sided, by the binomial distribution.

    Attributes:
        only_ours: samples that only our model gets right.
        only_theirs: samples that only the other model gets right.
        p_value: of both being equally accurate.
    """

    only_ours: int
    only_theirs: int
    p_value: float


class Difference(BaseModel):
    """How two models or recipes differ.

    Attributes:
        metric: the metric compared.
        ours: name of the one.
        theirs: name of the other.
        difference: our score minus theirs, as a fraction, as the next three.
        low: lower end of the 95 % interval, which all comparisons made together share: with 95 % confidence, all of their
            intervals hold (Bonferroni). It leaves out 0 if and only if the difference is significant. None where nothing
            varies between seeds, so that there is no interval.
        high: its upper end, likewise.
        smallest: the smallest difference that can be found here with 80 % power at the 5 % level, which all comparisons
            made together share equally; None where nothing varies between seeds, so that it cannot be said.
        test: the name of the test.
        why: why this test.
        p_value: of no difference, two-sided, corrected for ``comparisons``; 1 where nothing varies between seeds, so that no
            test can show anything.
        comparisons: how many comparisons were made together; 1 means that nothing had to be corrected.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    ours: str
    theirs: str
    difference: float
    low: float | None
    high: float | None
    smallest: float | None
    test: str
    why: str
    p_value: float
    comparisons: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def significant(self) -> bool:
        """Whether the difference is shown at the 5 % level, all comparisons together."""
        return self.interval is not None and self.p_value <= LEVEL

    @property
    def interval(self) -> Interval | None:
        """Lower and upper end, where there are any."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sentence(self) -> str:
        """The result, the test and why it fits, and what can be shown here at all."""
        found, pair = f"{100 * self.difference:+.1f} points of {self.metric}", f"{self.ours} against {self.theirs}"
        if self.interval is None:
            return f"{pair}: {found}. {self.limit}"
        low, high = (f"{100 * end:+.1f}" for end in self.interval)
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        among = ""
        if self.comparisons > 1:
            among = f" after Holm's correction for {self.comparisons} comparisons (the interval after Bonferroni's)"
        return f"{pair}: {found} ({low} to {high}), {p_value}{among}. {self.test}, because {self.why}. {self.limit}"

    def corrected(self, p_value: float, comparisons: int) -> Self:
        """The same among so many comparisons, with an interval that says of no difference what the test says."""
        found = self.model_copy(update={"p_value": p_value, "comparisons": comparisons})
        if self.interval is None:
            return found
        low, high = agreeing(self.interval, self.difference, found.significant)
        return found.model_copy(update={"low": low, "high": high})

    @property
    def limit(self) -> str:
        """What can be shown here at all."""
        if self.smallest is None:
            return f"There is no interval and no test: {self.why}."
        shared = f" shared among {self.comparisons} comparisons" if self.comparisons > 1 else ""
        points = f"{100 * self.smallest:.1f} points"
        return f"{self._who} can only show differences above {points} (80 % power, 5 % level{shared})."

    @property
    def _who(self) -> str:
        raise NotImplementedError


class ModelDifference(Difference):
    """How two models differ on the same samples.

    Attributes:
        samples: how many both answered.
        only_ours: samples that only our model gets right; None where predictions are more or less near, and never just right.
        only_theirs: samples that only the other model gets right; likewise.
    """

    samples: int
    only_ours: int | None
    only_theirs: int | None

    @property
    def _who(self) -> str:
        return f"These {self.samples} samples"


Found = TypeVar("Found", bound=Difference)


def compare_models(
    metric: Metric,
    predictions: Mapping[str, Values],
    targets: Values,
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
) -> list[ModelDifference]:
    """Compare models that answered the same samples, with Holm's correction over all comparisons.

    Args:
        metric: by which they are scored.
        predictions: name → predictions [n, …].
        targets: what is right [n, …].
        pairs: the names to compare, ours first; None compares each with each.
        seed: of the resampling.

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    chosen = list(combinations(predictions, 2)) if pairs is None else list(pairs)
    level = LEVEL / max(len(chosen), 1)
    return corrected([_compare(metric, ours, theirs, predictions, targets, level, seed) for ours, theirs in chosen])


def corrected(found: Sequence[Found]) -> list[Found]:
    """Differences looked at together: p-values by Holm's method, and intervals that say of no difference what they say.

    Args:
        found: with p-values of their own, and intervals at the level that they share (Bonferroni).
    """
    p_values = holm([each.p_value for each in found])
    return [each.corrected(p_value, len(found)) for each, p_value in zip(found, p_values, strict=True)]


def _compare(
    metric: Metric, ours: str, theirs: str, predictions: Mapping[str, Values], targets: Values, level: float, seed: int
) -> ModelDifference:
    both = predictions[ours], predictions[theirs], targets
    scores, test = PairedScores.of(metric, *both, level, seed), _mcnemar(metric, *both)
    low, high = scores.difference_interval()
    exact = metric.is_share_of_right and test is not None
    which = f"{metric.name} counts what is right" if exact else "exchanging answers needs no formula for the metric"
    return ModelDifference(
        metric=metric.name,
        ours=ours,
        theirs=theirs,
        difference=scores.ours - scores.theirs,
        low=low,
        high=high,
        smallest=smallest_difference(metric, *both, level, seed),
        test="McNemar's exact test" if exact else "Paired permutation test",
        why=f"both answered the same samples, and {which}",
        p_value=p_value(metric, *both, seed),
        samples=len(targets),
        only_ours=None if test is None else test.only_ours,
        only_theirs=None if test is None else test.only_theirs,
    )


def p_value(metric: Metric, ours: Values, theirs: Values, targets: Values, seed: int = 0) -> float:
    """Of two models scoring alike: McNemar's exact test of shares of what is right, else the paired permutation test.

    Shapes: predictions and targets, [n, …] each.
    """
    test = _mcnemar(metric, ours, theirs, targets) if metric.is_share_of_right else None
    return permutation_test(metric, ours, theirs, targets, seed) if test is None else test.p_value


def difference_interval(
    metric: Metric, ours: Values, theirs: Values, targets: Values, seed: int = 0, level: float = LEVEL
) -> Interval:
    """95 % interval of our score minus theirs over samples, as fractions (:class:`kdcli.evaluation.paired.PairedScores`).

    Shapes: predictions and targets, [n, …] each.
    """
    return PairedScores.of(metric, ours, theirs, targets, level, seed).difference_interval()


def _mcnemar(metric: Metric, ours: Values, theirs: Values, targets: Values) -> McNemar | None:
    """McNemar's exact test; None where predictions are never just right."""
    check_lengths(targets, ours, theirs)
    right, also = metric.right(ours, targets), metric.right(theirs, targets)
    return None if right is None or also is None else mcnemar(right, also)


def mcnemar(right: NDArray[np.bool_], also: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test. Shapes: whether our predictions are right, and whether theirs are, [n] each."""
    from scipy import stats

    only_ours, only_theirs = int((right & ~also).sum()), int((also & ~right).sum())
    differing = only_ours + only_theirs
    p_value = float(stats.binomtest(only_ours, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_ours, only_theirs, p_value)


def permutation_test(metric: Metric, ours: Values, theirs: Values, targets: Values, seed: int = 0) -> float:
    """How often the two models' predictions, exchanged sample by sample at random, differ as much: a two-sided p-value.

    Noreen 1989 (approximate randomisation); the observed ones count as one of the exchanges. Shapes: [n, …] each.
    """
    pairs = PairedSample.of(metric, ours, theirs, targets)
    drawn = np.abs(pairs.swapped(_TIMES, np.random.default_rng(seed)))
    as_much = int((drawn >= abs(pairs.difference()) - 1e-12).sum())
    return (1 + as_much) / (1 + _TIMES)


def smallest_difference(
    metric: Metric, ours: Values, theirs: Values, targets: Values, level: float = LEVEL, seed: int = 0
) -> float:
    """The smallest difference that the tests above find in so many samples with 80 % power, as a fraction.

    Shares of what is right: :func:`smallest_accuracy_difference` at the share of samples that one model alone gets right;
    other metrics: :func:`smallest_score_difference`. Shapes: [n, …] each.
    """
    test = _mcnemar(metric, ours, theirs, targets) if metric.is_share_of_right else None
    if test is not None:
        return smallest_accuracy_difference(len(targets), (test.only_ours + test.only_theirs) / len(targets), level)
    return smallest_score_difference(PairedSample.of(metric, ours, theirs, targets), level, seed=seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for having been looked at together, in the order given.

    Holm 1979: the smallest times m, the next times m − 1, and so on, never falling, at most 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return [float(value) for value in corrected]
