"""A metric is a score under weights: one bootstrap, one permutation test, one retention and one gate serve every metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError

Values = NDArray[Any]  # of each sample, what its kind of task has: a class, a number, …; the first axis is the samples
Floats = NDArray[np.float64]
Counts = NDArray[np.int64] | Floats
LEVEL = 0.05  # of every test and, as 95 %, of every interval


class Metric(ABC):
    """What models are scored by.

    Attributes:
        name: as ``--metric`` takes it.
        lowest: what the worst predictions score.
        on_hub: what the Hub calls it, and with which arguments.
        is_share_of_right: the score is the share of samples that are right, so that the exact tests and intervals of shares
            hold.
    """

    name: ClassVar[str]
    on_hub: ClassVar[tuple[str, dict[str, Any]]]
    lowest: ClassVar[float] = 0.0
    is_share_of_right: ClassVar[bool] = False

    @abstractmethod
    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """Scores of R sets of samples at once, as fractions (1.0 is perfect).

        Args:
            predictions: of each of K rows [K, …].
            targets: what is right for each [K, …].
            weights: how often each row is in each set, or what it weighs there [R, K].

        Returns:
            [R].
        """

    def score(self, predictions: Values, targets: Values) -> float:
        """The score of some samples, as a fraction. Shapes: [n, …] each.

        Raises:
            RequestError: not as many predictions as targets, or none.
        """
        check_lengths(targets, predictions)
        (gold, given), counts = self.distinct(targets, predictions)
        return float(self.scores(given, gold, counts[None])[0])

    def distinct(self, *columns: Values) -> tuple[tuple[Values, ...], NDArray[np.int64]]:
        """The rows that are unlike, in a fixed order, and how often each occurs: columns of [n, …] → of [K, …], and [K].

        Counted together rows are the same score at a fraction of the work; by default each row stands for itself.
        """
        return columns, np.ones(len(columns[0]), dtype=np.int64)

    def right(self, predictions: Values, targets: Values) -> NDArray[np.bool_] | None:
        """Which predictions are right [n]; None where a prediction is more or less near, and never just right."""
        return None

    def mistakes(self, targets: Values, *columns: Values) -> tuple[Values, Values]:
        """What might have occurred and did not: targets [M, …], at least two unlike ones, and for each a wrong prediction.

        Few samples vary too little: intervals are made of the samples and a few of these (:mod:`kdcli.evaluation.resampling`).
        None at all where predictions are numbers, which vary by themselves.

        Args:
            targets: those that occurred [n, …].
            columns: predictions that occurred [n, …].
        """
        return targets[:0], targets[:0]

    def mistaken(self, targets: Values, among: Sequence[Values]) -> Values | None:
        """For each target [n, …] a wrong prediction [n, …], such as occur ``among`` others; None as in :meth:`mistakes`."""
        return None

    def shuffled(self, predictions: Values, targets: Values, times: int, generator: np.random.Generator) -> Floats:
        """Scores of the same predictions in random order, so many times [times]."""
        return np.array([self.score(generator.permutation(predictions), targets) for _ in range(times)])


def check_lengths(targets: Values, *columns: Values) -> None:
    """Refuse predictions that do not belong to the targets.

    Raises:
        RequestError: not as many predictions as targets, or none.
    """
    for predictions in columns:
        if len(predictions) != len(targets) or len(targets) == 0:
            expected = f"{len(targets)}, one for each label" if len(targets) else "at least one sample"
            raise RequestError(
                Problem("the predictions", "do not belong to the labels", expected, f"{len(predictions)} predictions")
            )
