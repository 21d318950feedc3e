"""Scores of thousands of resamples at once: from how often each combination of classes occurs, not sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        counts: how many samples are of that combination, or what each weighs [K].
        samples: how many samples n there are, and a resample has.
    """

    labels: Classes
    given: Classes
    counts: Classes | Floats
    samples: int

    @classmethod
    def of(cls, predictions: Classes, labels: Classes) -> Answers:
        """Count predicted classes and gold classes, [n] each.

        Raises:
            RequestError: not as many predictions as labels, or none.
        """
        check_lengths(labels, predictions)
        (gold, given), counts = _counted(labels, predictions)
        return cls(gold, given, counts, len(labels))

    def smoothed(self, metric: str, extra: float) -> Answers:
        """With combinations that did not occur but might: ``extra`` samples right and as many wrong, over all classes."""
        classes, others = _mistaken(metric, self.labels, self.given)
        share = np.full(len(classes), extra / len(classes))
        return Answers(
            np.concatenate([self.labels, classes, classes]),
            np.concatenate([self.given, classes, others]),
            np.concatenate([self.counts, share, share]),
            self.samples,
        )

    def score(self, metric: str) -> float:
        """The score, as a fraction."""
        return float(scores_of_counts(metric, self.counts[None], self.given, self.labels)[0])

    def resampled(self, metric: str, times: int, generator: np.random.Generator) -> Floats:
        """The score on ``times`` bootstrap resamples, each n samples drawn with replacement; [times]."""
        return scores_of_counts(metric, _drawn(self.counts, self.samples, times, generator), self.given, self.labels)


@dataclass(frozen=True)
class Pairs:
    """Two models' answers to the same samples, counted: K combinations of label, our answer and theirs occur.

    Attributes:
        labels: gold class of each combination [K].
        ours: what the one model answers [K].
        theirs: what the other model answers [K].
        counts: how many samples are of that combination, or what each weighs [K].
        samples: how many samples n there are, and a resample has.
    """

    labels: Classes
    ours: Classes
    theirs: Classes
    counts: Classes | Floats
    samples: int

    @classmethod
    def of(cls, ours: Classes, theirs: Classes, labels: Classes) -> Pairs:
        """Count predicted classes and gold classes, [n] each.

        Raises:
            RequestError: not as many predictions as labels, or none.
        """
        check_lengths(labels, ours, theirs)
        (gold, one, other), counts = _counted(labels, ours, theirs)
        return cls(gold, one, other, counts, len(labels))

    def smoothed(self, metric: str, extra: float) -> Pairs:
        """With combinations that did not occur but might.

        ``extra`` samples that we alone get right and as many that they alone get right, spread evenly over the classes: where
        two models differ on a handful of samples, or on none, the samples themselves vary too little, and a rare class moves
        a mean over classes as much as a frequent one. Half a sample that both get right, and one that both get wrong: two
        models of which always the one is right and the other wrong vary, too.
        """
        classes, others = _mistaken(metric, self.labels, self.ours, self.theirs)
        apart, together = extra / len(classes), 0.5 / len(classes)
        found = self.joined(classes, classes, others, apart).joined(classes, others, classes, apart)
        return found.joined(classes, classes, classes, together).joined(classes, others, others, together)

    def joined(self, labels: Classes, ours: Classes, theirs: Classes, weights: Floats | float) -> Pairs:
        """With more combinations, [M] each."""
        more = np.broadcast_to(np.asarray(weights, dtype=np.float64), labels.shape)
        return Pairs(
            np.concatenate([self.labels, labels]),
            np.concatenate([self.ours, ours]),
            np.concatenate([self.theirs, theirs]),
            np.concatenate([self.counts, more]),
            self.samples,
        )

    def exchangeable(self) -> Pairs:
        """The same answers where neither model is the better: half of each combination with the two answers exchanged."""
        half: Floats = np.asarray(self.counts / 2, dtype=np.float64)
        return replace(self, counts=half).joined(self.labels, self.theirs, self.ours, half)

    def difference(self, metric: str) -> float:
        """Our score minus theirs, as a fraction."""
        return float(self._differences(metric, self.counts[None])[0])

    def both(self, metric: str) -> tuple[float, float]:
        """Our score and theirs, as fractions."""
        ours, theirs = self._both(metric, self.counts[None])
        return float(ours[0]), float(theirs[0])

    def resampled(self, metric: str, times: int, generator: np.random.Generator) -> Floats:
        """The difference on ``times`` bootstrap resamples, each n samples drawn with replacement; [times]."""
        ours, theirs = self.both_resampled(metric, times, generator)
        return ours - theirs

    def both_resampled(self, metric: str, times: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Our score and theirs on the same ``times`` bootstrap resamples; [times] each."""
        return self._both(metric, _drawn(self.counts, self.samples, times, generator))

    def swapped(self, metric: str, times: int, generator: np.random.Generator) -> Floats:
        """The difference after the two answers to each sample were exchanged by the toss of a coin; [times]."""
        kept = generator.binomial(self.counts.astype(np.int64), 0.5, size=(times, len(self.counts)))
        counts = np.concatenate([kept, self.counts - kept], axis=1)  # [times, 2 K]
        return self.exchangeable()._differences(metric, counts)

    def _differences(self, metric: str, counts: Classes | Floats) -> Floats:
        ours, theirs = self._both(metric, counts)
        return ours - theirs

    def _both(self, metric: str, counts: Classes | Floats) -> tuple[Floats, Floats]:
        ours, theirs = (scores_of_counts(metric, counts, answers, self.labels) for answers in (self.ours, self.theirs))
        return ours, theirs


def scores_of_counts(metric: str, counts: Classes | Floats, answers: Classes, labels: Classes) -> Floats:
    """:func:`kdcli.evaluation.metrics.score` of R sets of samples at once, [R], as fractions.

    Args:
        metric: one of :data:`kdcli.data.task.METRICS`.
        counts: how often each of K combinations occurs in each set, or what it weighs there [R, K].
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


def _drawn(counts: Classes | Floats, samples: int, times: int, generator: np.random.Generator) -> Classes:
    """How often each combination occurs in bootstrap resamples of so many samples; [times, K]."""
    return np.asarray(generator.multinomial(samples, counts / counts.sum(), size=times))


def other_classes(metric: str, classes: Classes) -> Classes:
    """For each of some classes, in rising order, one of them that it may be mistaken for; [C] each.

    Each class is mistaken for the next, the last for the first, so that each is given wrongly as often as it is missed;
    classes that are ordered for their neighbour.
    """
    if metric in ("pearson", "spearman"):
        return np.append(classes[1:], classes[-2])
    return np.roll(classes, -1)


def _mistaken(metric: str, labels: Classes, *answers: Classes) -> tuple[Classes, Classes]:
    """The classes that occur, two at least, and for each one that it may be mistaken for; [C] each."""
    classes = np.unique(np.concatenate([labels, *answers]))
    if len(classes) == 1:
        classes = np.array([classes[0], classes[0] + 1]) if classes[0] == 0 else np.array([0, classes[0]])
    return classes, other_classes(metric, classes)


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
