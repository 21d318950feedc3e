"""The tasks' metrics, by scikit-learn, from logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdcli.data.task import METRICS
from kdcli.errors import Problem, RequestError

Classes = NDArray[np.int64]


def score(metric: str, predictions: Classes, labels: Classes) -> float:
    """One metric as a fraction (1.0 is perfect), from predicted classes [n] and gold classes [n].

    ``accuracy``; ``f1`` of class 1; ``macro-f1`` and ``weighted-f1`` over the classes that occur on either side;
    ``matthews``, Matthews' correlation, from −1 to 1.
    """
    if metric == "accuracy":
        return float(np.mean(predictions == labels))
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


def scores(logits: NDArray[np.float32], labels: Classes, classes: int) -> dict[str, float]:
    """Every metric that is defined for the number of classes. Shapes: logits [n, C], labels [n]."""
    predictions = logits.argmax(-1)
    return {metric: score(metric, predictions, labels) for metric in METRICS if metric != "f1" or classes == 2}


def check_metric(metric: str, classes: int) -> None:
    """Refuse a metric that is unknown or not defined for the task.

    Raises:
        RequestError: with the metrics that there are.
    """
    if metric not in METRICS:
        raise RequestError(Problem(f"--metric {metric}", "there is no such metric", "one of " + ", ".join(METRICS)))
    if metric == "f1" and classes != 2:
        raise RequestError(Problem("--metric f1", f"needs two classes, the task has {classes}", "macro-f1 or weighted-f1"))
