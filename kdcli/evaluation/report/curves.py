"""Learning curves out of the lines of ``metrics.jsonl``, thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_POINTS = 160
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One curve: a value at each step."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Phase:
    """One phase of a training, such as ``cofinetune`` or ``distill``.

    Attributes:
        name: of the phase.
        metric: of the dev scores; empty where there are none.
        losses: the whole loss first, then its terms.
        dev: a curve for each model that was evaluated, as fractions.
        best: step of the best evaluation.
        stages: its stages and the step at which each was first heard of.
        averaged: how many logged values a point of a loss stands for.
    """

    name: str
    metric: str
    losses: Sequence[Line]
    dev: Sequence[Line]
    best: int | None
    stages: Sequence[tuple[str, int]]
    averaged: int


def read_phases(entries: Iterable[Entry], metric: str) -> list[Phase]:
    """The phases in the order in which they were trained.

    Args:
        entries: lines of ``metrics.jsonl``.
        metric: of the dev scores; where they do not have it, their first one is taken.
    """
    by_phase: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.get("kind") in ("train", "dev") and entry.get("step") is not None:
            by_phase.setdefault(str(entry["phase"]), []).append(entry)
    phases = [_phase(name, found, metric) for name, found in by_phase.items()]
    return [phase for phase in phases if phase.losses or phase.dev]


def _phase(name: str, entries: Sequence[Entry], metric: str) -> Phase:
    train = [entry for entry in entries if entry["kind"] == "train"]
    dev = [entry for entry in entries if entry["kind"] == "dev"]
    kept = _dev_metric(dev, metric)
    stages: dict[str, int] = {}
    for entry in entries:
        stages.setdefault(str(entry.get("stage")), entry["step"])
    whole = _collect((entry["step"], entry.get("values", {})) for entry in train)
    losses = [line for line in whole if line.name == "loss" or line.name.startswith("loss/")]
    if len(losses) == 2:  # the whole and its only term
        losses = [line for line in losses if line.name == "loss"]
    every = max((math.ceil(len(line.steps) / _MOST_POINTS) for line in losses), default=1)
    scores = ((entry["step"], {model: each.get(kept) for model, each in entry["scores"].items()}) for entry in dev)
    return Phase(
        name=name,
        metric=kept,
        losses=[_thinned(line, every) for line in sorted(losses, key=lambda line: line.name != "loss")],
        dev=_collect(scores),
        best=next((entry["step"] for entry in reversed(dev) if entry.get("best")), None),
        stages=list(stages.items()),
        averaged=every,
    )


def _dev_metric(dev: Sequence[Entry], metric: str) -> str:
    names = [name for entry in dev for scores in entry["scores"].values() for name in scores]
    return metric if metric in names else next(iter(names), "")


def _collect(steps: Iterable[tuple[int, Mapping[str, float | None]]]) -> list[Line]:
    """A line for each name; values that are missing or not finite are left out."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for step, values in steps:
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                places, heights = lines.setdefault(name, ([], []))
                places.append(step)
                heights.append(value)
    return [Line(name, places, heights) for name, (places, heights) in lines.items()]


def _thinned(line: Line, every: int) -> Line:
    """The means of so many points each."""
    starts = range(0, len(line.steps), every)
    steps, values = ([_mean(whole[start : start + every]) for start in starts] for whole in (line.steps, line.values))
    return Line(line.name, steps, values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
