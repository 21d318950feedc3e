"""What a kind of task must answer; everybody else asks the kind, and never which kind it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError, RunFailedError
from kdcli.tasks.calibration import Calibration
from kdcli.tasks.class_scores import ClassScore
from kdcli.tasks.metric import Metric, Values

Outputs = NDArray[np.float32]  # what a model says of each sample, before anything is decided from it


class Kind(ABC):
    """A kind of task, with what is known of one task: its classes, its numbers, ….

    Attributes:
        name: as ``--kind`` and plans have it.
        guess_name: what :meth:`guess` is called in tables.
        guessing: the same in a sentence.
    """

    name: ClassVar[str]
    guess_name: ClassVar[str]
    guessing: ClassVar[str]

    # Targets

    @abstractmethod
    def known(self, targets: Values) -> NDArray[np.bool_]:
        """Which samples have a target [n]; those of unlabelled text have none."""

    # Scores

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """By name those that are defined for this task, the usual one first."""

    @abstractmethod
    def lack(self, metric: str) -> Problem | None:
        """Why a metric is not defined for this task."""

    def metric(self, name: str) -> Metric:
        """One of its metrics.

        Raises:
            RequestError: it is unknown, or not defined for this task; with those that are.
        """
        problem = self.lack(name)
        if problem is not None:
            raise RequestError(problem)
        return self.metrics[name]

    def scores(self, outputs: Outputs, targets: Values) -> dict[str, float]:
        """Every metric. Shapes: outputs, targets [n, …].

        Raises:
            RunFailedError: outputs are not finite, so that there is no score.
        """
        predictions = self.finite_predictions(outputs)
        return {name: metric.score(predictions, targets) for name, metric in self.metrics.items()}

    # Predictions

    @abstractmethod
    def predictions(self, outputs: Outputs) -> Values:
        """What is decided from a model's outputs [n, …]."""

    def finite_predictions(self, outputs: Outputs) -> Values:
        """The same.

        Raises:
            RunFailedError: some outputs are not finite: the largest of NaN is always the first, which no model has said.
        """
        broken = rows_not_finite(outputs)
        if len(broken):
            raise RunFailedError(
                f"outputs are not finite for {len(broken)} of {len(outputs)} samples, so that they have no score"
            )
        return self.predictions(outputs)

    @abstractmethod
    def ensemble(self, outputs: Sequence[Outputs]) -> Outputs:
        """The outputs of several models as those of one [n, …]."""

    @abstractmethod
    def guess(self, known: Values, count: int) -> Values:
        """Predictions without a model, from the targets of other samples: always the same one [count, …]."""

    # Tables

    @abstractmethod
    def written(self, value: Any) -> str:
        """A target or a prediction as it stands in tables."""

    def groups(self, targets: Values) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Samples that have a target in common, in which a student may lose more than elsewhere: name and row numbers."""
        return iter(())

    def missing(self, targets: Values) -> list[str]:
        """Names of what the task has and none of these targets is."""
        return []

    def class_scores(self, predictions: Values, targets: Values) -> list[ClassScore]:
        """Class by class, in the task's order; none where there are no classes."""
        return []

    def confusion(self, predictions: Values, targets: Values) -> list[list[int]]:
        """Counts: a row for each gold class, in it a column for each predicted one; empty where there are no classes."""
        return []

    def calibration(self, outputs: Outputs, targets: Values) -> Calibration | None:
        """How far confidence is from accuracy; None where nothing is a probability."""
        return None


def rows_not_finite(outputs: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of the rows of ``outputs`` [n, …] that hold an infinite value or NaN."""
    return np.flatnonzero(~np.isfinite(outputs).reshape(len(outputs), -1).all(-1))
