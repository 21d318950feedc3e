"""Whether a model knows anything about a task: its score against guessing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.evaluation.metrics import Classes, predicted, score
from kdcli.evaluation.resampling import scores_of_counts

_SHUFFLES = 500
_LEVEL = 0.05
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class ChanceTest:
    """How a score compares with guessing.

    Attributes:
        score: of the model.
        majority: of always answering the most frequent class.
        p_value: how often the same predictions in random order score as well (one-sided permutation test).
    """

    metric: str
    score: float
    majority: float
    p_value: float

    @property
    def at_chance(self) -> bool:
        """Not distinguishable from its own predictions shuffled (5 % level), or no more accurate than the majority class."""
        return self.p_value > _LEVEL or (self.metric == "accuracy" and self.score <= self.majority)


def against_chance(logits: NDArray[np.float32], labels: Classes, metric: str) -> ChanceTest:
    """As :func:`chance_test`, from logits [n, C]."""
    return chance_test(predicted(logits), labels, metric)


def chance_test(predictions: Classes, labels: Classes, metric: str) -> ChanceTest:
    """Compare a model's predictions with the majority class and with their own permutations.

    Shapes: predicted classes and gold classes, [n] each.
    """
    found = score(metric, predictions, labels)
    classes, (gold, given) = _numbered(labels, predictions)
    generator, cells = np.random.default_rng(0), len(classes) ** 2
    as_good = 0
    rows = max(1, min(_SHUFFLES, _AT_ONCE // cells))  # so many shuffles are scored together
    for first in range(0, _SHUFFLES, rows):
        drawn = [len(classes) * gold + generator.permutation(given) for _ in range(min(rows, _SHUFFLES - first))]
        counts = np.stack([np.bincount(pairs, minlength=cells) for pairs in drawn])
        occur = np.flatnonzero(counts.any(0))
        values = scores_of_counts(metric, counts[:, occur], classes[occur % len(classes)], classes[occur // len(classes)])
        as_good += int((values >= found - 1e-12).sum())
    p_value = (1 + as_good) / (1 + _SHUFFLES)
    return ChanceTest(metric, found, score(metric, majority_answers(labels, labels), labels), p_value)


def _numbered(labels: Classes, predictions: Classes) -> tuple[Classes, tuple[Classes, Classes]]:
    """The classes that occur, and both sides as places among them."""
    classes = np.union1d(labels, predictions)
    return classes, (np.searchsorted(classes, labels), np.searchsorted(classes, predictions))


def majority_answers(train_labels: Classes, labels: Classes) -> Classes:
    """The most frequent class of ``train_labels`` as the answer to each of ``labels``."""
    values, counts = np.unique(train_labels, return_counts=True)
    return np.full(len(labels), values[counts.argmax()], dtype=np.int64)
