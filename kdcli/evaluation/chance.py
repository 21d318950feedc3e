"""Whether a model knows anything about a task: its score against guessing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.tasks.kind import Kind, Outputs
from kdcli.tasks.metric import LEVEL, Metric, Values

_SHUFFLES = 500


@dataclass(frozen=True)
class ChanceTest:
    """How a score compares with guessing.

    Attributes:
        metric: by which it was scored.
        score: of the model.
        majority: of the best guess that is always the same, such as the most frequent class.
        p_value: how often the same predictions in random order score as well (one-sided permutation test).
    """

    metric: Metric
    score: float
    majority: float
    p_value: float

    @property
    def at_chance(self) -> bool:
        """Not distinguishable from its own predictions shuffled (5 % level), or no more often right than that guess."""
        return self.p_value > LEVEL or (self.metric.is_share_of_right and self.score <= self.majority)


def against_chance(kind: Kind, metric: Metric, outputs: Outputs, targets: Values) -> ChanceTest:
    """As :func:`chance_test`, from outputs [n, …]."""
    return chance_test(kind, metric, kind.finite_predictions(outputs), targets)


def chance_test(kind: Kind, metric: Metric, predictions: Values, targets: Values) -> ChanceTest:
    """Compare a model's predictions with the best constant guess and with their own permutations.

    Shapes: predictions and targets, [n, …] each.
    """
    found = metric.score(predictions, targets)
    values = metric.shuffled(predictions, targets, _SHUFFLES, np.random.default_rng(0))
    as_good = int((values >= found - 1e-12).sum())
    guessed = metric.score(kind.guess(targets, len(targets)), targets)
    return ChanceTest(metric, found, guessed, (1 + as_good) / (1 + _SHUFFLES))
