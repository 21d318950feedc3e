"""Scores of thousands of resamples at once: from how often each combination of classes occurs, not sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError
from kdcli.evaluation.metrics import Classes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """A model's answers to samples, counted: K combinations of label and answer occur.

    Attributes:
        labels: gold class of each combination [K].
        given: what the model answers [K].
        counts: how many samples are of that combination [K].
    """

    labels: Classes
    given: Classes
    counts: Classes

    @classmethod
    def of(cls, predictions: Classes, labels: Classes) -> Answers:
        """Count predicted classes and gold classes, [n] each.

        Raises:
            RequestError: not as many predictions as labels, or none.
        """
        check_lengths(labels, predictions)
        (gold, given), counts = _counted(labels, predictions)
        return cls(gold, given, counts)

    def resampled(self, metric: str, times: int, generator: np.random.Generator) -> Floats:
        """The score on ``times`` bootstrap resamples, each n samples drawn with replacement; [times]."""
        return scores_of_counts(metric, _drawn(self.counts, times, generator), self.given, self.labels)


@dataclass(frozen=True)
class Pairs:
    """Two models' answers to the same samples, counted: K combinations of label, our answer and theirs occur.

    Attributes:
        labels: gold class of each combination [K].
        ours: what the one model answers [K].
        theirs: what the other model answers [K].
        counts: how many samples are of that combination [K].
    """

    labels: Classes
    ours: Classes
    theirs: Classes
    counts: Classes

    @classmethod
    def of(cls, ours: Classes, theirs: Classes, labels: Classes) -> Pairs:
        """Count predicted classes and gold classes, [n] each.

        Raises:
            RequestError: not as many predictions as labels, or none.
        """
        check_lengths(labels, ours, theirs)
        (gold, one, other), counts = _counted(labels, ours, theirs)
        return cls(gold, one, other, counts)

    @property
    def samples(self) -> int:
        """How many samples n there are."""
        return int(self.counts.sum())

    def difference(self, metric: str) -> float:
        """Our score minus theirs, as a fraction."""
        return float(self._differences(metric, self.counts[None])[0])

    def resampled(self, metric: str, times: int, generator: np.random.Generator) -> Floats:
        """The difference on ``times`` bootstrap resamples, each n samples drawn with replacement; [times]."""
        ours, theirs = self.both_resampled(metric, times, generator)
        return ours - theirs

    def both_resampled(self, metric: str, times: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Our score and theirs on the same ``times`` bootstrap resamples; [times] each.

        Accuracies are drawn from the 2×2 table of right and wrong with half a sample more in each cell (Agresti and Min 2005):
        where two models differ on a handful of samples, or on none, the samples themselves vary too little.
        """
        if metric == "accuracy":
            return self._accuracies(times, generator)
        return self._both(metric, _drawn(self.counts, times, generator))

    def _accuracies(self, times: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
        right, also = self.ours == self.labels, self.theirs == self.labels
        cells = np.array([self.counts[cell].sum() for cell in (right & also, right & ~also, ~right & also, ~right & ~also)])
        drawn = generator.multinomial(self.samples, (cells + 0.5) / (self.samples + 2), size=times) / self.samples
        return drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]

    def swapped(self, metric: str, times: int, generator: np.random.Generator) -> Floats:
        """The difference after the two answers to each sample were exchanged by the toss of a coin; [times]."""
        kept = generator.binomial(self.counts, 0.5, size=(times, len(self.counts)))
        counts = np.concatenate([kept, self.counts - kept], axis=1)  # [times, 2 K]
        both_ways = Pairs(
            np.tile(self.labels, 2),
            np.concatenate([self.ours, self.theirs]),
            np.concatenate([self.theirs, self.ours]),
            np.tile(self.counts, 2),
        )
        return both_ways._differences(metric, counts)

    def _differences(self, metric: str, counts: Classes) -> Floats:
        ours, theirs = self._both(metric, counts)
        return ours - theirs

    def _both(self, metric: str, counts: Classes) -> tuple[Floats, Floats]:
        ours, theirs = (scores_of_counts(metric, counts, answers, self.labels) for answers in (self.ours, self.theirs))
        return ours, theirs


def scores_of_counts(metric: str, counts: Classes, answers: Classes, labels: Classes) -> Floats:
    """:func:`kdcli.evaluation.metrics.score` of R sets of samples at once, [R], as fractions.

    Args:
        metric: one of :data:`kdcli.data.task.METRICS`.
        counts: how often each of K combinations occurs in each set [R, K].
        answers: predicted class of each combination [K].
        labels: gold class of each combination [K].
    """
    classes = np.union1d(answers, labels)
    weights = counts.astype(np.float64)
    hits = _per_class(weights * (answers == labels), labels, classes)  # [R, C]
    given, present = _per_class(weights, answers, classes), _per_class(weights, labels, classes)
    total = weights.sum(-1)
    if metric == "accuracy":
        return np.asarray(hits.sum(-1) / total)
    if metric == "matthews":
        covariance = hits.sum(-1) * total - (given * present).sum(-1)
        spread = np.sqrt((total**2 - (given**2).sum(-1)) * (total**2 - (present**2).sum(-1)))
        return _ratio(covariance, spread)
    if metric in ("pearson", "spearman"):
        place = _centred_values if metric == "pearson" else _centred_ranks
        ours, gold = place(given, classes), place(present, classes)  # [R, C]
        together = weights * ours[:, np.searchsorted(classes, answers)] * gold[:, np.searchsorted(classes, labels)]
        return _ratio(together.sum(-1), np.sqrt((given * ours**2).sum(-1) * (present * gold**2).sum(-1)))
    f1 = _ratio(2 * hits, given + present)
    if metric == "f1":
        return np.asarray(f1[:, classes == 1].sum(-1))
    shares = {"macro-f1": (given + present > 0).astype(np.float64), "weighted-f1": present}[metric]
    return np.asarray((f1 * shares).sum(-1) / shares.sum(-1))


def check_lengths(labels: Classes, *answers: Classes) -> None:
    """Refuse predictions that do not belong to the labels.

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    for predictions in answers:
        if len(predictions) != len(labels) or len(labels) == 0:
            expected = f"{len(labels)}, one for each label" if len(labels) else "at least one sample"
            raise RequestError(
                Problem("the predictions", "do not belong to the labels", expected, f"{len(predictions)} predictions")
            )


def _counted(*columns: Classes) -> tuple[Classes, Classes]:
    """The combinations of classes that occur, [columns, K], in rising order, and how often each does, [K]."""
    size = int(max(column.max() for column in columns)) + 1
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        codes = codes * size + column
    kinds, counts = np.unique(codes, return_counts=True)
    return np.stack(np.unravel_index(kinds, (size,) * len(columns))), counts


def _drawn(counts: Classes, times: int, generator: np.random.Generator) -> Classes:
    """How often each combination occurs in bootstrap resamples of the samples so counted; [times, K]."""
    samples = counts.sum()
    return np.asarray(generator.multinomial(samples, counts / samples, size=times))


def _centred_values(counts: Floats, classes: Classes) -> Floats:
    """How far each class lies above the mean of its set, times the number of samples so that it stays whole; [R, C]."""
    return np.asarray(classes * counts.sum(-1, keepdims=True) - (counts * classes).sum(-1, keepdims=True))


def _centred_ranks(counts: Floats, _: Classes) -> Floats:
    """How far the mid-rank of each class lies above the middle of its set, twice, so that it is whole; [R, C]."""
    return np.asarray(2 * counts.cumsum(-1) - counts - counts.sum(-1, keepdims=True))


def _per_class(weights: Floats, values: Classes, classes: Classes) -> Floats:
    """Sums of the columns of ``weights`` [R, K] by their class, ``values`` [K]; [R, C]."""
    from scipy import sparse

    columns = np.arange(len(values))
    chosen = sparse.csr_array((np.ones(len(values)), (columns, np.searchsorted(classes, values))), (len(values), len(classes)))
    return np.asarray(weights @ chosen)


def _ratio(above: Floats, below: Floats) -> Floats:
    """The quotient, 0 where there is nothing to divide by, as scikit-learn does."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
