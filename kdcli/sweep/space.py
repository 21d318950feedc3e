"""What is searched: each parameter with its values, and what a combination of them puts into the recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from random import Random
from typing import Any

from kdcli.recipe.yaml_document import KeyPath, Override, parse
from kdcli.sweep.sweep_schema import DEFAULT_TRIALS, Range, Sweep

Combination = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One key of the recipe that is searched.

    Attributes:
        key: as the file has it, such as ``training.learning_rate``.
        path: the same as a path.
        place: ``file:line``.
        values: a range, or a list of choices.
    """

    key: str
    path: KeyPath
    place: str
    values: Range | list[Any]

    def ends(self) -> list[Any]:
        """Both ends of a range; every choice of a list."""
        return [self.values.low, self.values.high] if isinstance(self.values, Range) else list(self.values)

    def all(self) -> list[Any]:
        """Every value, where they can be counted."""
        return list(self.values.values()) if isinstance(self.values, Range) else list(self.values)

    def override(self, value: Any, flag: str | None = None) -> Override:
        """What puts a value into the recipe; ``flag`` says in messages where it is from."""
        return Override(self.path, value, flag or f"--set {self.key}={text(value)}")

    def words(self) -> str:
        """Its values, as the plan shows them."""
        if not isinstance(self.values, Range):
            return ", ".join(text(value) for value in self.values)
        more = ", logarithmic" if self.values.log else f", step {self.values.step:g}" if self.values.step else ""
        return f"{self.values.low:g} to {self.values.high:g}{more}"


def text(value: Any) -> str:
    """A value as it is written in a line of YAML.

    >>> text({"bert": {1: 2}}), text([1, "last", None])
    ('{bert: {1: 2}}', '[1, last, null]')
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(key)}: {text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, str) and (not value or parse(value, "").data != value):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(value: Any) -> str:
    """A value for people: four figures of a number, words as they are."""
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def same(one: Any, other: Any) -> bool:
    """Whether two choices are the same value; 1 and true are not."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def overrides(parameters: Sequence[Parameter], values: Combination) -> tuple[Override, ...]:
    """What puts a combination into the recipe."""
    return tuple(parameter.override(values[parameter.key]) for parameter in parameters)


def combinations(parameters: Sequence[Parameter]) -> int:
    """How many combinations a grid has."""
    return math.prod(len(parameter.all()) for parameter in parameters)


def most_trials(sweep: Sweep, parameters: Sequence[Parameter]) -> int:
    """How many trials there are at the most."""
    if sweep.sampler != "grid":
        return sweep.trials or DEFAULT_TRIALS
    size = combinations(parameters)
    return min(sweep.trials or size, size)


def grid_point(sweep: Sweep, parameters: Sequence[Parameter], number: int) -> Combination:
    """The combination of a trial: in the order of the file where all are taken, else a share drawn evenly by the seed."""
    size = combinations(parameters)
    if most_trials(sweep, parameters) < size:
        number = Random(sweep.sampler_seed).sample(range(size), size)[number % size]
    values = next(islice(product(*(parameter.all() for parameter in parameters)), number % size, None))
    return dict(zip((parameter.key for parameter in parameters), values, strict=True))
