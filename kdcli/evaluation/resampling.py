"""Scores of thousands of resamples at once, of rows that are alike counted together; of any metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kdcli.tasks.metric import Counts, Floats, Metric, Values, check_lengths

_AT_ONCE = 8_000_000  # weights of resamples in memory together


@dataclass(frozen=True)
class Sample:
    """One model's predictions for a sample of texts, rows that are alike counted together: K rows are unlike.

    Attributes:
        metric: by which they are scored.
        targets: what is right for each row [K, …].
        predictions: what the model says [K, …].
        counts: how many texts are such a row, or what each weighs [K].
        size: how many texts n there are, and a resample has.
    """

    metric: Metric
    targets: Values
    predictions: Values
    counts: Counts
    size: int

    @classmethod
    def of(cls, metric: Metric, predictions: Values, targets: Values) -> Sample:
        """Count predictions and targets, [n, …] each.

        Raises:
            RequestError: not as many predictions as targets, or none.
        """
        check_lengths(targets, predictions)
        (gold, given), counts = metric.distinct(targets, predictions)
        return cls(metric, gold, given, counts, len(targets))

    def smoothed(self, extra: float) -> Sample:
        """With rows that did not occur but might: ``extra`` texts right and as many wrong, over all unlike targets."""
        targets, wrong = self.metric.mistakes(self.targets, self.predictions)
        if not len(targets):
            return self
        share = np.full(len(targets), extra / len(targets))
        return Sample(
            self.metric,
            np.concatenate([self.targets, targets, targets]),
            np.concatenate([self.predictions, targets, wrong]),
            np.concatenate([self.counts, share, share]),
            self.size,
        )

    def score(self) -> float:
        """The score, as a fraction."""
        return float(self.metric.scores(self.predictions, self.targets, self.counts[None])[0])

    def resampled(self, times: int, generator: np.random.Generator) -> Floats:
        """The score on ``times`` bootstrap resamples, each n texts drawn with replacement; [times]."""

        def scored(rows: int) -> Floats:
            return self.metric.scores(self.predictions, self.targets, _drawn(self.counts, self.size, rows, generator))

        return _in_parts(times, len(self.counts), scored)


@dataclass(frozen=True)
class PairedSample:
    """Two models' predictions for the same texts, counted: K rows are unlike.

    Attributes:
        metric: by which they are scored.
        targets: what is right for each row [K, …].
        ours: what the one model says [K, …].
        theirs: what the other model says [K, …].
        counts: how many texts are such a row, or what each weighs [K].
        size: how many texts n there are, and a resample has.
    """

    metric: Metric
    targets: Values
    ours: Values
    theirs: Values
    counts: Counts
    size: int

    @classmethod
    def of(cls, metric: Metric, ours: Values, theirs: Values, targets: Values) -> PairedSample:
        """Count predictions and targets, [n, …] each.

        Raises:
            RequestError: not as many predictions as targets, or none.
        """
        check_lengths(targets, ours, theirs)
        (gold, one, other), counts = metric.distinct(targets, ours, theirs)
        return cls(metric, gold, one, other, counts, len(targets))

    def smoothed(self, extra: float) -> PairedSample:
        """With rows that did not occur but might.

        ``extra`` texts that we alone get right and as many that they alone get right, spread evenly over the unlike targets:
        where two models differ on a handful of texts, or on none, the texts themselves vary too little, and a rare class moves
        a mean over classes as much as a frequent one. Half a text that both get right, and one that both get wrong: two models
        of which always the one is right and the other wrong vary, too.
        """
        targets, wrong = self.metric.mistakes(self.targets, self.ours, self.theirs)
        if not len(targets):
            return self
        apart, together = extra / len(targets), 0.5 / len(targets)
        found = self.joined(targets, targets, wrong, apart).joined(targets, wrong, targets, apart)
        return found.joined(targets, targets, targets, together).joined(targets, wrong, wrong, together)

    def joined(self, targets: Values, ours: Values, theirs: Values, weights: Floats | float) -> PairedSample:
        """With more rows, [M, …] each."""
        more = np.broadcast_to(np.asarray(weights, dtype=np.float64), targets.shape[:1])
        return replace(
            self,
            targets=np.concatenate([self.targets, targets]),
            ours=np.concatenate([self.ours, ours]),
            theirs=np.concatenate([self.theirs, theirs]),
            counts=np.concatenate([self.counts, more]),
        )

    def exchangeable(self) -> PairedSample:
        """The same predictions where neither model is the better: half of each row with the two predictions exchanged."""
        half: Floats = np.asarray(self.counts / 2, dtype=np.float64)
        return replace(self, counts=half).joined(self.targets, self.theirs, self.ours, half)

    def difference(self) -> float:
        """Our score minus theirs, as a fraction."""
        ours, theirs = self.both()
        return ours - theirs

    def both(self) -> tuple[float, float]:
        """Our score and theirs, as fractions."""
        ours, theirs = self._both(self.counts[None])
        return float(ours[0]), float(theirs[0])

    def resampled(self, times: int, generator: np.random.Generator) -> Floats:
        """The difference on ``times`` bootstrap resamples, each n texts drawn with replacement; [times]."""
        ours, theirs = self.both_resampled(times, generator)
        return ours - theirs

    def both_resampled(self, times: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Our score and theirs on the same ``times`` bootstrap resamples; [times] each."""

        def scored(rows: int) -> Floats:
            return np.stack(self._both(_drawn(self.counts, self.size, rows, generator)), axis=1)

        found = _in_parts(times, len(self.counts), scored)
        return found[:, 0], found[:, 1]

    def swapped(self, times: int, generator: np.random.Generator) -> Floats:
        """The difference after the two predictions for each text were exchanged by the toss of a coin; [times]."""
        both = self.exchangeable()

        def scored(rows: int) -> Floats:
            kept = generator.binomial(self.counts.astype(np.int64), 0.5, size=(rows, len(self.counts)))
            ours, theirs = both._both(np.concatenate([kept, self.counts - kept], axis=1))  # [rows, 2 K]
            return ours - theirs

        return _in_parts(times, 2 * len(self.counts), scored)

    def _both(self, weights: Counts) -> tuple[Floats, Floats]:
        ours, theirs = (self.metric.scores(said, self.targets, weights) for said in (self.ours, self.theirs))
        return ours, theirs


def _in_parts(times: int, width: int, scored: Callable[[int], Floats]) -> Floats:
    """What ``scored`` says of so many resamples, asked for no more at once than fit into memory."""
    rows = max(1, min(times, _AT_ONCE // max(width, 1)))
    return np.concatenate([scored(min(rows, times - first)) for first in range(0, times, rows)])


def _drawn(counts: Counts, size: int, times: int, generator: np.random.Generator) -> Counts:
    """How often each row occurs in bootstrap resamples of so many texts; [times, K]."""
    return np.asarray(generator.multinomial(size, counts / counts.sum(), size=times))
