"""What a sweep found, as one document: ``sweep.json``, ``kdcli distill --sweep --json``, and what table and page show.

Scores are those of the task's metric on the dev split, as fractions.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from kdcli import __version__
from kdcli.data.splits import TEST
from kdcli.plan.plan import Plan
from kdcli.sweep.folder import SweepFolder
from kdcli.sweep.space import Parameter
from kdcli.sweep.study import MACHINE, MESSAGE, PLACE, SCORES, TWIN, SweepStudy, decoded

State = Literal["complete", "pruned", "failed", "running"]
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}
_ORDER: dict[State, int] = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class TrialResult(_Part):
    """One trial.

    Attributes:
        number: of the trial, as in the name of its folder.
        rank: among the complete trials, from 1; None for the others.
        state: complete; pruned (it was not given all seeds); failed; running (at another process, or interrupted).
        mean: of the scores that there are.
        deviation: standard deviation over the seeds; None with one score.
        scores: seed → dev score.
        parameters: key → value.
        message: why it failed.
        same_as: number of the earlier trial with the same values, whose scores it has.
        folder: where its runs are, one per seed.
        machine: the one that has that folder, where it is not in this sweep's.
    """

    number: int
    rank: int | None
    state: State
    mean: float | None
    deviation: float | None
    scores: dict[int, float]
    parameters: dict[str, Any]
    message: str | None = None
    same_as: int | None = None
    folder: str
    machine: str | None = None


class ParameterResult(_Part):
    """One parameter.

    Attributes:
        values: what was searched, in words.
        log: whether on a logarithmic scale.
        importance: share of the spread of the means that it explains (fANOVA); None where there were too few trials.
    """

    key: str
    values: str
    log: bool
    importance: float | None


class SweepResult(_Part):
    """A whole sweep.

    Attributes:
        format: version of this schema; it grows by one whenever a field changes its meaning or goes.
        kdcli: version of the program.
        task, metric, split: what was scored; the split is always dev.
        sampler, sampler_seed, seeds, most: as the sweep's file has them; ``most`` is the number of trials at the most.
        parameters: what was searched.
        trials: the complete ones first, the best first.
        best: number of the best trial; None while none is complete.
        recipe: the file with the best trial's values.
        caution: what has to be said beside the best score.
        test_command: scores the best trial's runs on the test split.
    """

    format: Literal[1] = 1
    kdcli: str = __version__
    task: str
    metric: str
    split: Literal["dev"] = "dev"
    sampler: str
    sampler_seed: int
    seeds: list[int]
    most: int
    parameters: list[ParameterResult]
    trials: list[TrialResult]
    best: int | None
    recipe: str | None
    caution: str
    test_command: str | None

    @property
    def best_trial(self) -> TrialResult | None:
        """The trial of rank 1."""
        return next((trial for trial in self.trials if trial.rank == 1), None)

    def history(self) -> list[TrialResult]:
        """The complete trials by number."""
        return sorted((trial for trial in self.trials if trial.rank is not None), key=lambda trial: trial.number)


def results(study: SweepStudy, plan: Plan, folder: SweepFolder) -> SweepResult:
    """What the storage knows of the sweep."""
    trials = list(_ranked([_trial(one, study.parameters, folder) for one in study.trials()]))
    best = next((trial for trial in trials if trial.rank == 1), None)
    importance = study.importance()
    done = sum(trial.rank is not None for trial in trials)
    return SweepResult(
        task=plan.task.name,
        metric=plan.task.metric,
        sampler=study.sweep.sampler,
        sampler_seed=study.sweep.sampler_seed,
        seeds=list(study.sweep.seeds),
        most=study.most,
        parameters=[_parameter(one, importance.get(one.key)) for one in study.parameters],
        trials=trials,
        best=None if best is None else best.number,
        recipe=None if best is None else str(folder.best),
        caution=_caution(done, len(trials)),
        test_command=None if best is None else _test_command(best, plan),
    )


def _trial(trial: FrozenTrial, parameters: Sequence[Parameter], folder: SweepFolder) -> TrialResult:
    scores = {int(seed): score for seed, score in trial.user_attrs.get(SCORES, {}).items()}
    here = folder.trial(trial.number)
    place = trial.user_attrs.get(PLACE, str(here.resolve()))
    elsewhere = place != str(here.resolve())
    return TrialResult(
        number=trial.number,
        rank=None,
        state=_STATES[trial.state],
        mean=fmean(scores.values()) if scores else None,
        deviation=stdev(scores.values()) if len(scores) > 1 else None,
        scores=scores,
        parameters=decoded(parameters, trial.params),
        message=trial.user_attrs.get(MESSAGE),
        same_as=trial.user_attrs.get(TWIN),
        folder=place if elsewhere else str(here),
        machine=trial.user_attrs.get(MACHINE) if elsewhere else None,
    )


def _ranked(trials: Sequence[TrialResult]) -> Iterator[TrialResult]:
    """The trials in order, the complete ones with their ranks; of two with the same mean the earlier first."""
    ordered = sorted(trials, key=lambda one: (_ORDER[one.state], -(one.mean or 0.0), one.number))
    for rank, trial in enumerate(ordered, 1):
        yield trial.model_copy(update={"rank": rank}) if trial.state == "complete" else trial


def _parameter(parameter: Parameter, importance: float | None) -> ParameterResult:
    log = bool(getattr(parameter.values, "log", False))
    return ParameterResult(key=parameter.key, values=parameter.words(), log=log, importance=importance)


def _caution(complete: int, trials: int) -> str:
    if complete == 0:
        return f"None of {trials} trials is complete, so that there is no best one."
    return (
        f"The best of {trials} dev scores is optimistic: the trial was chosen by the rows that it is scored on. "
        "What it is worth is its score on the test split, looked at once."
    )


def _test_command(best: TrialResult, plan: Plan) -> str:
    folder = shlex.quote(str(Path(best.folder)))
    return f"kdcli evaluate {folder} --split test" if TEST in plan.task.splits else f"kdcli evaluate {folder} --data TEST.csv"
