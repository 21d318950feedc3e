"""Metrics of predictions that are one of C classes, by their indices."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kdcli.tasks.metric import Counts, Floats, Metric, Values

Classes = NDArray[np.int64]
_AT_ONCE = 2_000_000


class ClassMetric(Metric):
    """A metric of predicted classes [n] and gold classes [n]; rows that are alike are counted once."""

    def distinct(self, *columns: Values) -> tuple[tuple[Values, ...], NDArray[np.int64]]:
        """The combinations of classes that occur, in rising order, and how often each does."""
        size = int(max(column.max() for column in columns)) + 1
        codes = np.zeros(len(columns[0]), dtype=np.int64)
        for column in columns:
            codes = codes * size + column
        kinds, counts = np.unique(codes, return_counts=True)
        return tuple(np.unravel_index(kinds, (size,) * len(columns))), counts

    def right(self, predictions: Values, targets: Values) -> NDArray[np.bool_]:
        """Those that are the gold class."""
        return np.asarray(predictions == targets)

    def mistakes(self, targets: Values, *columns: Values) -> tuple[Classes, Classes]:
        """The classes that occur, two at least, and for each one that it may be mistaken for; [C] each."""
        classes = np.unique(np.concatenate([targets, *columns]))
        if len(classes) == 1:
            classes = np.array([classes[0], classes[0] + 1]) if classes[0] == 0 else np.array([0, classes[0]])
        return classes, self._others(classes)

    def mistaken(self, targets: Values, among: tuple[Values, ...] | list[Values]) -> Classes:  # type: ignore[override]
        """For each gold class another one of those that occur, or of the first two."""
        classes = np.unique(np.concatenate([*among, [0, 1]]))
        return self._others(classes)[np.searchsorted(classes, targets)]

    def shuffled(self, predictions: Values, targets: Values, times: int, generator: np.random.Generator) -> Floats:
        """As many shuffles at once as fit into memory, counted."""
        classes = np.union1d(targets, predictions)
        gold, given = np.searchsorted(classes, targets), np.searchsorted(classes, predictions)
        cells = len(classes) ** 2
        rows = max(1, min(times, _AT_ONCE // cells))
        found = []
        for first in range(0, times, rows):
            drawn = [len(classes) * gold + generator.permutation(given) for _ in range(min(rows, times - first))]
            counts = np.stack([np.bincount(pairs, minlength=cells) for pairs in drawn])
            occur = np.flatnonzero(counts.any(0))
            found.append(self.scores(classes[occur % len(classes)], classes[occur // len(classes)], counts[:, occur]))
        return np.concatenate(found)

    def _others(self, classes: Classes) -> Classes:
        """For each of some classes, in rising order, one of them that it may be mistaken for; [C] each.

        Each class is mistaken for the next, the last for the first, so that each is given wrongly as often as it is missed.
        """
        return np.roll(classes, -1)


class Accuracy(ClassMetric):
    """The share of samples that are right."""

    name = "accuracy"
    on_hub = ("accuracy", {})
    is_share_of_right = True

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """The weight of what is right, of all."""
        return np.asarray((weights * (predictions == targets)).sum(-1, dtype=np.float64) / weights.sum(-1))


class _F1(ClassMetric):
    """F1 of the classes that occur on either side: 2·hits / (predicted + present)."""

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """F1 of each class, averaged as the metric does it."""
        classes, hits, given, present = _counted(predictions, targets, weights)
        return self._averaged(ratio(2 * hits, given + present), classes, given, present)

    def _averaged(self, f1: Floats, classes: Classes, given: Floats, present: Floats) -> Floats:
        raise NotImplementedError


class F1(_F1):
    """F1 of class 1 of two."""

    name = "f1"
    on_hub = ("f1", {})

    def _averaged(self, f1: Floats, classes: Classes, given: Floats, present: Floats) -> Floats:
        return np.asarray(f1[:, classes == 1].sum(-1))


class MacroF1(_F1):
    """Mean F1 over the classes that occur on either side."""

    name = "macro-f1"
    on_hub = ("f1", {"average": "macro"})

    def _averaged(self, f1: Floats, classes: Classes, given: Floats, present: Floats) -> Floats:
        occurs = (given + present > 0).astype(np.float64)
        return np.asarray((f1 * occurs).sum(-1) / occurs.sum(-1))


class WeightedF1(_F1):
    """F1 of the classes, weighted by how often each occurs."""

    name = "weighted-f1"
    on_hub = ("f1", {"average": "weighted"})

    def _averaged(self, f1: Floats, classes: Classes, given: Floats, present: Floats) -> Floats:
        return np.asarray((f1 * present).sum(-1) / present.sum(-1))


class Matthews(ClassMetric):
    """Matthews' correlation, from −1 to 1; 0 where either side is always the same."""

    name = "matthews"
    on_hub = ("matthews_correlation", {})
    lowest = -1.0

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """Covariance of both sides, divided by both their spreads."""
        _, hits, given, present = _counted(predictions, targets, weights)
        total = weights.sum(-1)
        covariance = hits.sum(-1) * total - (given * present).sum(-1)
        spread = np.sqrt((total**2 - (given**2).sum(-1)) * (total**2 - (present**2).sum(-1)))
        return ratio(covariance, spread)


class _Correlation(ClassMetric):
    """Correlation of ordered classes, from −1 to 1; 0 where either side is always the same."""

    lowest: ClassVar[float] = -1.0

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """Of where the classes stand on both sides."""
        classes, _, given, present = _counted(predictions, targets, weights)
        ours, gold = self._places(given, classes), self._places(present, classes)  # [R, C]
        weighted = weights.astype(np.float64)
        together = weighted * ours[:, np.searchsorted(classes, predictions)] * gold[:, np.searchsorted(classes, targets)]
        return ratio(together.sum(-1), np.sqrt((given * ours**2).sum(-1) * (present * gold**2).sum(-1)))

    def _places(self, counts: Floats, classes: Classes) -> Floats:
        """Where each class stands, around 0; [R, C]."""
        raise NotImplementedError

    def _others(self, classes: Classes) -> Classes:
        """Classes that are ordered are mistaken for their neighbour."""
        return np.append(classes[1:], classes[-2])


class Pearson(_Correlation):
    """Pearson's correlation of evenly spaced classes, whose indices stand for their values.

    The index is then an affine function of the value, which Pearson's correlation does not see.
    """

    name = "pearson"
    on_hub = ("pearsonr", {})

    def _places(self, counts: Floats, classes: Classes) -> Floats:
        """How far each class lies above the mean of its set, times the number of samples so that it stays whole."""
        return np.asarray(classes * counts.sum(-1, keepdims=True) - (counts * classes).sum(-1, keepdims=True))


class Spearman(_Correlation):
    """Spearman's correlation of ordered classes."""

    name = "spearman"
    on_hub = ("spearmanr", {})

    def _places(self, counts: Floats, classes: Classes) -> Floats:
        """How far the mid-rank of each class lies above the middle of its set, twice, so that it is whole."""
        return np.asarray(2 * counts.cumsum(-1) - counts - counts.sum(-1, keepdims=True))


CLASS_METRICS: dict[str, ClassMetric] = {
    metric.name: metric for metric in (Accuracy(), F1(), MacroF1(), WeightedF1(), Matthews(), Pearson(), Spearman())
}


def _counted(predictions: Classes, targets: Classes, weights: Counts) -> tuple[Classes, Floats, Floats, Floats]:
    """The classes that occur [C]; of each set the weight of what is right, predicted and present, by class; [R, C] each."""
    classes = np.union1d(predictions, targets)
    weighted = weights.astype(np.float64)
    hits = _per_class(weighted * (predictions == targets), targets, classes)
    return classes, hits, _per_class(weighted, predictions, classes), _per_class(weighted, targets, classes)


def _per_class(weights: Floats, values: Classes, classes: Classes) -> Floats:
    """Sums of the columns of ``weights`` [R, K] by their class, ``values`` [K]; [R, C]."""
    from scipy import sparse

    columns = np.arange(len(values))
    chosen = sparse.csr_array((np.ones(len(values)), (columns, np.searchsorted(classes, values))), (len(values), len(classes)))
    return np.asarray(weights @ chosen)


def ratio(above: Floats, below: Floats) -> Floats:
    """The quotient, 0 where there is nothing to divide by, as scikit-learn does."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
