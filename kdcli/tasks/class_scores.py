"""How a model does class by class, by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.metric import check_lengths


class ClassScore(BaseModel):
    """How a model does on one class.

    Attributes:
        name: of the class.
        rows: samples of this class.
        predicted: samples that the model takes for this class.
        precision, recall, f1: as scikit-learn has them, 0 where there is nothing to divide by.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    rows: int
    predicted: int
    precision: float
    recall: float
    f1: float


def class_scores(predictions: Classes, labels: Classes, names: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each class, in order; 0 where there is nothing to divide by.

    Args:
        predictions: predicted classes [n].
        labels: gold classes [n].
        names: of the classes.

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    from sklearn.metrics import precision_recall_fscore_support

    check_lengths(labels, predictions)
    found = precision_recall_fscore_support(labels, predictions, labels=range(len(names)), zero_division=0.0)
    predicted = np.bincount(predictions, minlength=len(names))
    return [
        ClassScore(
            name=name, rows=int(rows), predicted=int(outputs), precision=float(precision), recall=float(recall), f1=float(f1)
        )
        for name, outputs, precision, recall, f1, rows in zip(names, predicted, *found, strict=True)
    ]


def confusion(predictions: Classes, labels: Classes, classes: int) -> list[list[int]]:
    """Counts: a row for each gold class, in it a column for each answer. Shapes: predictions, labels [n].

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    from sklearn.metrics import confusion_matrix

    check_lengths(labels, predictions)
    counts: list[list[int]] = confusion_matrix(labels, predictions, labels=range(classes)).tolist()
    return counts


def missing_classes(labels: Classes, names: Sequence[str]) -> list[str]:
    """Names of the classes that none of the gold classes [n] is."""
    present = set(labels.tolist())
    return [name for index, name in enumerate(names) if index not in present]
