"""The pictures of a sweep: how it went on, what each value gave, and which parameters mattered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from kdcli.evaluation.report.canvas import (
    INK,
    PAPER,
    SERIES,
    WIDTH,
    Picture,
    canvas,
    finished,
    plain_logarithms,
    shown,
    ticker,
)
from kdcli.sweep.results import ParameterResult, SweepResult, TrialResult
from kdcli.sweep.space import shown as value_text

_HEIGHT = 240
_MOST_CHOICES_ALONG = 12


def history(result: SweepResult) -> Picture:
    """Every complete trial's mean by number, and the best one so far."""
    trials = result.history()
    numbers, means = [trial.number for trial in trials], _means(trials)
    with canvas("history", WIDTH, _HEIGHT) as figure:
        axes = _axes(figure, "History", "trial", result.metric)
        axes.plot(numbers, means, "o", color=SERIES[0], markersize=6, markeredgecolor=PAPER, label="mean over the seeds")
        axes.step(numbers, list(accumulate(means, max)), where="post", color=SERIES[1], linewidth=1.4, label="best so far")
        axes.xaxis.set_major_locator(ticker().MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        return finished(figure, "history", f"dev {result.metric} of {len(trials)} complete trials, and the best so far")


def slices(result: SweepResult) -> list[Picture]:
    """For each parameter, every complete trial's mean by the value that it had."""
    return [_slice(result, one, f"slice-{place}") for place, one in enumerate(result.parameters, 1)]


def _slice(result: SweepResult, parameter: ParameterResult, name: str) -> Picture:
    trials = result.history()
    values = [trial.parameters[parameter.key] for trial in trials]
    with canvas(name, WIDTH, _HEIGHT) as figure:
        axes = _axes(figure, shown(parameter.key), "", result.metric)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            places: Sequence[Any] = values
            if parameter.log:
                axes.set_xscale("log")
                plain_logarithms(axes.xaxis)
        else:
            words = list(dict.fromkeys(map(value_text, values)))
            places = [words.index(value_text(value)) for value in values]
            axes.set_xticks(range(len(words)), [shown(word, 16) for word in words])
            axes.tick_params(axis="x", labelrotation=30 if len(words) > _MOST_CHOICES_ALONG // 3 else 0)
            axes.set_xlim(-0.5, len(words) - 0.5)
        means = _means(trials)
        axes.plot(places, means, "o", color=SERIES[0], markersize=6, markeredgecolor=PAPER)
        best = means.index(max(means))
        axes.plot(places[best], means[best], "o", color=SERIES[1], markersize=8, markeredgecolor=PAPER)
        return finished(figure, name, f"dev {result.metric} by {parameter.key}, {len(trials)} complete trials")


def importances(result: SweepResult) -> Picture | None:
    """How much of the spread each parameter explains; None where that is not known."""
    known = [(one.key, one.importance) for one in result.parameters if one.importance is not None]
    if not known:
        return None
    known.sort(key=lambda pair: pair[1])
    with canvas("importance", WIDTH, 80 + 34 * len(known)) as figure:
        axes = figure.subplots()
        axes.set_title("Importance")
        axes.set_xlabel("share of the spread of the means (fANOVA)")
        axes.barh(range(len(known)), [share for _, share in known], height=0.32, color=SERIES[0])
        axes.set_yticks([])
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.4, len(known) - 0.2)
        for place, (key, share) in enumerate(known):
            axes.text(0, place + 0.26, f"{shown(key)}  {share:.2f}", color=INK, va="bottom")
        axes.grid(axis="x")
        return finished(figure, "importance", "share of the spread of the means that each parameter explains")


def _axes(figure: Any, title: str, across: str, metric: str) -> Any:
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(f"dev {metric} × 100")
    axes.grid(axis="y")
    return axes


def _means(trials: Sequence[TrialResult]) -> list[float]:
    return [100 * (trial.mean or 0.0) for trial in trials]
