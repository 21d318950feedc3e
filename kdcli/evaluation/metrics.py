"""The tasks' metrics, by scikit-learn and scipy, from logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdcli.data.task import METRICS
from kdcli.errors import Problem, RequestError, RunFailedError
from kdcli.models.finite import rows_not_finite

Classes = NDArray[np.int64]

_FEWEST_VALUES = 3


def score(metric: str, predictions: Classes, labels: Classes) -> float:
    """One metric as a fraction (1.0 is perfect), from predicted classes [n] and gold classes [n].

    ``accuracy``; ``f1`` of class 1; ``macro-f1`` and ``weighted-f1`` over the classes that occur on either side;
    ``matthews``, Matthews' correlation, from −1 to 1. For classes that are ordered numbers, such as ratings: ``pearson`` and
    ``spearman``, the correlation of predicted with gold values, from −1 to 1, 0 where either side is always the same. Class
    indices stand for the values: ranks are the same, and of evenly spaced values the index is an affine function, which
    Pearson's correlation does not see.
    """
    if metric == "accuracy":
        return float(np.mean(predictions == labels))
    if metric in ("pearson", "spearman"):
        return _correlation(metric, predictions, labels)
    from sklearn import metrics  # here, because it takes longer to import than a dry run to plan

    if metric == "matthews":
        if len(np.union1d(labels, predictions)) == 1:  # scikit-learn says 0 too, and warns
            return 0.0
        return float(metrics.matthews_corrcoef(labels, predictions))
    if metric == "f1":
        return float(metrics.f1_score(labels, predictions, pos_label=1, zero_division=0.0))
    present = np.union1d(labels, predictions)
    average = metric.removesuffix("-f1")
    return float(metrics.f1_score(labels, predictions, labels=present, average=average, zero_division=0.0))


def _correlation(metric: str, predictions: Classes, labels: Classes) -> float:
    from scipy import stats

    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:  # scipy warns, and says not-a-number
        return 0.0
    correlate = stats.pearsonr if metric == "pearson" else stats.spearmanr
    return float(correlate(predictions, labels).statistic)


def scores(logits: NDArray[np.float32], labels: Classes, classes: Sequence[str]) -> dict[str, float]:
    """Every metric that is defined for classes of these names. Shapes: logits [n, C], labels [n].

    Raises:
        RunFailedError: logits are not finite, so that there is no score.
    """
    predictions = predicted(logits)
    return {metric: score(metric, predictions, labels) for metric in metrics_of(classes)}


def predicted(logits: NDArray[np.float32]) -> Classes:
    """The class [n] with the largest logit; every score of logits [n, C] is of these.

    Raises:
        RunFailedError: some are not finite: the largest of NaN is always the first, which no model has said.
    """
    broken = rows_not_finite(logits)
    if len(broken):
        raise RunFailedError(f"outputs are not finite for {len(broken)} of {len(logits)} samples, so that they have no score")
    return np.asarray(logits.argmax(-1), dtype=np.int64)


def metrics_of(classes: Sequence[str]) -> list[str]:
    """The metrics that are defined for classes of these names, as :func:`check_metric` has them.

    >>> metrics_of(["1", "2", "4"])
    ['accuracy', 'macro-f1', 'weighted-f1', 'matthews', 'spearman']
    """
    return [metric for metric in METRICS if _lack(metric, classes) is None]


def check_metric(metric: str, classes: Sequence[str]) -> None:
    """Refuse a metric that is unknown or not defined for classes of these names.

    ``f1`` needs two classes; ``spearman`` three or more that are rising numbers, ``pearson`` evenly spaced ones.

    Raises:
        RequestError: with the metrics that there are.
    """
    if metric not in METRICS:
        raise RequestError(Problem(f"--metric {metric}", "there is no such metric", "one of " + ", ".join(METRICS)))
    lack = _lack(metric, classes)
    if lack is not None:
        raise RequestError(lack)


def _lack(metric: str, classes: Sequence[str]) -> Problem | None:
    """What classes of these names lack for a metric."""
    where = f"--metric {metric}"
    if metric == "f1" and len(classes) != 2:
        return Problem(where, f"needs two classes, the task has {len(classes)}", "macro-f1 or weighted-f1")
    if metric not in ("pearson", "spearman"):
        return None
    if len(classes) == 2:
        return Problem(where, "needs three classes or more, the task has 2", "matthews, which is the same of two classes")
    steps = np.diff(_values(classes))
    named = ", ".join(classes[:10])
    if len(steps) < _FEWEST_VALUES - 1 or not (steps > 0).all():
        return Problem(where, "needs classes that are rising numbers", "classes such as 1, 2, 3; or macro-f1", named)
    if metric == "pearson" and not np.allclose(steps, steps[0], rtol=1e-6, atol=0.0):
        return Problem(where, "needs classes that are evenly spaced numbers", "classes such as 1, 2, 3; or spearman", named)
    return None


def _values(classes: Sequence[str]) -> NDArray[np.float64]:
    """The classes' names as numbers; none at all where one of them is not a finite number."""
    try:
        values = np.array([float(name) for name in classes])
    except ValueError:
        return np.empty(0)
    return values if np.isfinite(values).all() else np.empty(0)
