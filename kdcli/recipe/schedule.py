"""Values that change over a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdcli.recipe.blocks import Schedule


@dataclass(frozen=True)
class Moment:
    """A place in a stage, from which everything follows that changes over it or is drawn at random.

    Attributes:
        step, steps: steps taken, of how many.
        epoch, epochs: whole epochs done, of how many (a part of an epoch counts as one).
        seed: of the phase.
        stage: index of the stage.
    """

    step: int = 0
    steps: int = 1
    epoch: int = 0
    epochs: int = 1
    seed: int = 0
    stage: int = 0


def value_at(value: float | Schedule, moment: Moment) -> float:
    """A number as it is, a schedule at a moment: its first value at the first step, its last at the last one.

    >>> rising = Schedule.model_validate({"from": 0, "to": 1})
    >>> [value_at(rising, Moment(step, 5)) for step in range(5)]
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> annealed = Schedule.model_validate({"from": "share", "to": 1})
    >>> [value_at(annealed, Moment(step, 4)) for step in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    if not isinstance(value, Schedule):
        return float(value)
    done, whole = (moment.epoch, moment.epochs) if value.every == "epoch" else (moment.step, moment.steps)
    progress = done / (whole - 1) if whole > 1 else 1.0
    progress = min(1.0, max(0.0, (progress - value.begin) / (value.end - value.begin)))
    start = value.first(max(whole, 1))
    if value.shape == "exponential":
        return float(start * (value.to / start) ** progress)
    if value.shape == "cosine":
        progress = 0.5 * (1.0 - math.cos(math.pi * progress))
    return float(start + (value.to - start) * progress)
