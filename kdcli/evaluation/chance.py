"""Whether a model knows anything about a task: its score against guessing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.evaluation.metrics import Classes, score

_SHUFFLES = 500
_LEVEL = 0.05


@dataclass(frozen=True)
class ChanceTest:
    """How a score compares with guessing.

    Attributes:
        score: of the model.
        majority: of always answering the most frequent class.
        p_value: how often the same answers in random order score as well (one-sided permutation test).
    """

    metric: str
    score: float
    majority: float
    p_value: float

    @property
    def at_chance(self) -> bool:
        """Not distinguishable from its own answers shuffled (5 % level), or no more accurate than the majority class."""
        return self.p_value > _LEVEL or (self.metric == "accuracy" and self.score <= self.majority)


def against_chance(logits: NDArray[np.float32], labels: Classes, metric: str) -> ChanceTest:
    """Compare a model's answers with the majority class and with their own permutations.

    Shapes: logits [n, C], labels [n].
    """
    predictions = logits.argmax(-1)
    found = score(metric, predictions, labels)
    generator = np.random.default_rng(0)
    shuffled = [score(metric, generator.permutation(predictions), labels) for _ in range(_SHUFFLES)]
    p_value = (1 + sum(value >= found - 1e-12 for value in shuffled)) / (1 + _SHUFFLES)
    return ChanceTest(metric, found, score(metric, majority_answers(labels, labels), labels), p_value)


def majority_answers(train_labels: Classes, labels: Classes) -> Classes:
    """The most frequent class of ``train_labels`` as the answer to each of ``labels``."""
    values, counts = np.unique(train_labels, return_counts=True)
    return np.full(len(labels), values[counts.argmax()], dtype=np.int64)
