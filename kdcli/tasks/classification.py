"""One of C classes for each sample. Targets and predictions are class indices [n], outputs are logits [n, C]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem
from kdcli.tasks.calibration import Calibration, calibrate
from kdcli.tasks.class_metrics import CLASS_METRICS, Classes
from kdcli.tasks.class_scores import ClassScore, class_scores, confusion, missing_classes
from kdcli.tasks.kind import Kind, Outputs
from kdcli.tasks.metric import Metric, Values

_FEWEST_VALUES = 3


@dataclass(frozen=True)
class Classification(Kind):
    """One of C classes for each sample.

    Attributes:
        names: of the classes; the position is the class index everywhere.
        raw_names: what the data files write for each class.
    """

    name = "classification"
    guess_name = "majority class"
    guessing = "always answering the most frequent class"

    names: tuple[str, ...]
    raw_names: tuple[str, ...]

    # Targets

    def known(self, targets: Values) -> NDArray[np.bool_]:
        """Those whose class is not −1."""
        return np.asarray(targets >= 0)

    # Scores

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Those that are defined for classes of these names.

        >>> list(Classification(("1", "2", "4"), ("1", "2", "4")).metrics)
        ['accuracy', 'macro-f1', 'weighted-f1', 'matthews', 'spearman']
        """
        return {name: metric for name, metric in CLASS_METRICS.items() if self.lack(name) is None}

    def lack(self, metric: str) -> Problem | None:
        """``f1`` needs two classes; ``spearman`` three or more that are rising numbers, ``pearson`` evenly spaced ones."""
        where, count = f"--metric {metric}", len(self.names)
        if metric not in CLASS_METRICS:
            return Problem(where, "there is no such metric", "one of " + ", ".join(CLASS_METRICS))
        if metric == "f1" and count != 2:
            return Problem(where, f"needs two classes, the task has {count}", "macro-f1 or weighted-f1")
        if metric not in ("pearson", "spearman"):
            return None
        if count == 2:
            return Problem(where, "needs three classes or more, the task has 2", "matthews, which is the same of two classes")
        steps = np.diff(_values(self.names))
        named = ", ".join(self.names[:10])
        if len(steps) < _FEWEST_VALUES - 1 or not (steps > 0).all():
            return Problem(where, "needs classes that are rising numbers", "classes such as 1, 2, 3; or macro-f1", named)
        if metric == "pearson" and not np.allclose(steps, steps[0], rtol=1e-6, atol=0.0):
            return Problem(where, "needs classes that are evenly spaced numbers", "classes such as 1, 2, 3; or spearman", named)
        return None

    # Predictions

    def predictions(self, outputs: Outputs) -> Classes:
        """The class with the largest logit."""
        return np.asarray(outputs.argmax(-1), dtype=np.int64)

    def ensemble(self, outputs: Sequence[Outputs]) -> Outputs:
        """The logarithm of the mean of the members' probabilities."""
        from scipy.special import log_softmax, logsumexp

        with np.errstate(invalid="ignore"):  # of a member whose outputs are not finite nothing is made: it is said elsewhere
            logs = np.stack([log_softmax(np.asarray(each, dtype=np.float64), axis=-1) for each in outputs])
            return np.asarray(logsumexp(logs, axis=0) - np.log(len(outputs)), dtype=np.float32)

    def guess(self, known: Values, count: int) -> Classes:
        """The most frequent class."""
        values, counts = np.unique(known, return_counts=True)
        return np.full(count, values[counts.argmax()], dtype=np.int64)

    # Tables

    def written(self, value: Any) -> str:
        """The class's name."""
        return self.names[int(value)]

    def groups(self, targets: Values) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The samples of each class."""
        for index, name in enumerate(self.names):
            yield name, np.flatnonzero(targets == index)

    def missing(self, targets: Values) -> list[str]:
        """The classes that none of the targets is."""
        return missing_classes(targets, self.names)

    def class_scores(self, predictions: Values, targets: Values) -> list[ClassScore]:
        """Precision, recall and F1 of each class."""
        return class_scores(predictions, targets, self.names)

    def confusion(self, predictions: Values, targets: Values) -> list[list[int]]:
        """Counts by gold and by predicted class."""
        return confusion(predictions, targets, len(self.names))

    def calibration(self, outputs: Outputs, targets: Values) -> Calibration:
        """Of the probability of the predicted class."""
        return calibrate(outputs, targets)


def _values(classes: Sequence[str]) -> NDArray[np.float64]:
    """The classes' names as numbers; none at all where one of them is not a finite number."""
    try:
        values = np.array([float(name) for name in classes])
    except ValueError:
        return np.empty(0)
    return values if np.isfinite(values).all() else np.empty(0)
