"""``kdcli distill --sweep``: trials over a recipe's values, each an ordinary run per seed, ranked by dev score.

Check everything, co-finetune the teachers once where all trials can share them, then trial by trial: draw its values, train a
student per seed, tell Optuna, and write down what was found.
"""

from __future__ import annotations

import gc
import os
import shlex
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from optuna.trial import Trial, TrialState

from kdcli.engine.events import (
    Event,
    Events,
    Note,
    PhaseDone,
    PhaseStarted,
    RunOpened,
    StepDone,
)
from kdcli.engine.interruption import refuse_to_go_on
from kdcli.engine.runtime import give_back_memory
from kdcli.errors import InterruptedRunError, KdcliError, Problem, RequestError, RunFailedError, RunTakenError
from kdcli.jobs.cofinetune import cofinetune
from kdcli.jobs.distill import distill
from kdcli.jobs.ownership import owned
from kdcli.jobs.request_checks import check_cheaply, with_absolute_paths, with_starter_defaults
from kdcli.jobs.training_shortcuts import CACHE_LIMIT
from kdcli.models.head_file import SHARED_HEAD
from kdcli.plan.request import TrainRequest
from kdcli.sweep.checking import Checked, check, for_teachers, with_values
from kdcli.sweep.folder import SweepFolder, begun, found, owned_in_turn, removed
from kdcli.sweep.result_files import write_results
from kdcli.sweep.results import SweepResult, results
from kdcli.sweep.space import Combination, shown
from kdcli.sweep.study import MACHINE, PLACE, TWIN, SweepStudy, opened_study
from kdcli.sweep.sweep_file import LoadedSweep, load
from kdcli.sweep.sweep_schema import OWN_STORAGE

MOST_FAILURES = 3
_PROGRESS = (PhaseStarted, StepDone, PhaseDone)
Score = Callable[[TrainRequest, Events, Path, int], float]


class _TooManyFailuresError(RunFailedError):
    """Trial after trial has failed."""


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do."""

    loaded: LoadedSweep
    checked: Checked
    trials: int
    first: Combination


@dataclass(frozen=True)
class _Work:
    """A sweep at work."""

    request: TrainRequest
    loaded: LoadedSweep
    checked: Checked
    folder: SweepFolder
    study: SweepStudy
    events: Events
    cache_limit: int
    score: Score
    warned: set[str] = field(default_factory=set)


def dev_score(request: TrainRequest, events: Events, folder: Path, cache_limit: int) -> float:
    """Make a run, or finish it, and return its student's score on dev.

    Raises:
        RunFailedError: the student has no score.
    """
    torch.set_float32_matmul_precision("highest")  # an earlier run in this process may have chosen another
    try:
        _, evaluation = distill(request, events, folder, (folder / "plan.yaml").is_file(), cache_limit)
    finally:
        gc.collect()
        give_back_memory()
    students = evaluation.of("student")
    if not students:
        raise RunFailedError("\n".join(one.sentence for one in evaluation.unscored) or "the student has no score")
    return students[0].scores[evaluation.metric]


def dry_sweep(request: TrainRequest, file: Path, events: Events) -> DryRun:
    """Check a sweep, and say what it would do.

    Raises:
        RequestError: with everything that is wrong.
    """
    loaded = load(file)
    first, trials = _first_values(loaded)
    return DryRun(loaded, check(_whole(request), loaded, first, events), trials, first)


def sweep(
    request: TrainRequest | None,
    file: Path,
    events: Events,
    out: Path | None = None,
    resume: bool = False,
    cache_limit: int = CACHE_LIMIT,
    score: Score = dev_score,
) -> tuple[SweepFolder, SweepResult]:
    """Try combinations of a recipe's values and rank them by dev score.

    Args:
        request: what was asked for beside the sweep; None with ``resume`` takes it from the folder.
        file: the sweep's file.
        events: who is told.
        out: the sweep's folder, or None for a new name.
        resume: go on with a sweep that is there, or take part in it.
        cache_limit: what teachers say is kept in so many bytes, by all runs together.
        score: makes or finishes one run in a folder and returns its score.

    Raises:
        RequestError: something is wrong with the request; nothing was written.
        RunFailedError: three trials in a row failed.
        InterruptedRunError: a signal asked to stop; ``resume`` goes on.
    """
    _refuse_several_processes()
    loaded = load(file)
    asked = None if request is None else _whole(request)
    folder: SweepFolder | None = None
    if resume:
        folder, asked = found(out, loaded, asked)
    assert asked is not None
    checked = check(asked, loaded, _first_values(loaded)[0], events)
    with ExitStack() as opening:
        new = folder is None
        if folder is None:
            folder = begun(out, checked.plan.task.name, loaded, asked)
        where = loaded.document.where(("storage",))
        try:
            study = opening.enter_context(
                opened_study(loaded.sweep, loaded.parameters, f"kdcli-{checked.identity}", folder.path, where, not new)
            )
        except RequestError:
            if new:
                removed(folder)
            raise
        events.emit(RunOpened(str(folder.path)))
        events.emit(Note(f"sweep folder: {folder.path}"))
        work = _Work(asked, loaded, checked, folder, study, events, cache_limit, score)
        try:
            _train_teachers(work)
            _try_all(work)
        except InterruptedRunError as error:
            raise InterruptedRunError(f"{error}".replace("--resume goes on", _goes_on(work, file))) from None
        except _TooManyFailuresError:
            _written(work)
            raise
        return folder, _written(work)


def _written(work: _Work) -> SweepResult:
    """What was found, written into the sweep's folder as well."""
    found_so_far = results(work.study, work.checked.plan, work.folder)
    with owned_in_turn(work.folder.path, work.events):
        write_results(found_so_far, work.request, work.loaded, work.folder)
    return found_so_far


def _whole(request: TrainRequest) -> TrainRequest:
    """The request with the starter task's defaults and absolute paths, and without a baseline unless one was asked for."""
    check_cheaply(request)
    whole = with_starter_defaults(with_absolute_paths(request))
    return whole.model_copy(update={"baseline": bool(request.baseline)})


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RequestError(
            Problem(
                "--sweep",
                "is for processes that each train runs of their own",
                "one process",
                f"{os.environ['WORLD_SIZE']} that share each batch",
                "start kdcli without a launcher, as often as there are devices, with --resume",
            )
        )


def _first_values(loaded: LoadedSweep) -> tuple[Combination, int]:
    """The values of the first trial, and how many trials there are at the most."""
    with opened_study(loaded.sweep, loaded.parameters, "first", None, "") as study:
        trial = study.ask()
        assert trial is not None
        return study.values(trial), study.most


def _goes_on(work: _Work, file: Path) -> str:
    return f"kdcli distill --sweep {shlex.quote(str(file))} --resume --out {shlex.quote(str(work.folder.path))} goes on"


def _train_teachers(work: _Work) -> None:
    """Co-finetune the teachers for all trials, unless they are there or each trial trains its own."""
    run = work.folder.teachers
    if not work.checked.once:
        return
    with owned_in_turn(work.folder.path, work.events):
        if (run / "teachers" / SHARED_HEAD).is_file() and (run / "evaluation.json").is_file():
            return
        work.events.emit(Note("the teachers are co-finetuned once, for all trials"))
        cofinetune(for_teachers(work.request), _quieter(work), run, (run / "plan.yaml").is_file())


def _try_all(work: _Work) -> None:
    """Trial after trial, until there are enough.

    Raises:
        RunFailedError: three in a row failed.
    """
    failures: list[str] = []
    while True:
        with ExitStack() as owning:
            trial = _next(work, owning)
            if trial is None:
                return
            message = _failure(work, trial)
        failures = [] if message is None else [*failures, f"trial {trial.number}: {message}"]
        if len(failures) == MOST_FAILURES:
            raise _TooManyFailuresError(
                f"{MOST_FAILURES} trials in a row failed, so that the sweep ends\n  " + "\n  ".join(failures)
            )


def _next(work: _Work, owning: ExitStack) -> Trial | None:
    """A trial that was left off, or a new one; this process owns its folder."""
    own = work.loaded.sweep.storage == OWN_STORAGE
    for left in work.study.trials():
        here = own or work.folder.trial(left.number).is_dir()
        if left.state == TrialState.RUNNING and here and _claimed(work, left.number, owning):
            work.events.emit(Note(f"trial {left.number} goes on"))
            return work.study.taken_up(left.number)
    while (trial := work.study.ask()) is not None:
        if _claimed(work, trial.number, owning):
            return trial
    return None


def _claimed(work: _Work, number: int, owning: ExitStack) -> bool:
    """Whether a trial is this process's, until it has ended or is finished."""
    folder = work.folder.trial(number)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        owning.enter_context(owned(folder))
    except RunTakenError:
        return False
    return any(one.number == number and one.state == TrialState.RUNNING for one in work.study.trials())


def _failure(work: _Work, trial: Trial) -> str | None:
    """Carry a trial through; why it failed, if it did."""
    trial.set_user_attr(PLACE, str(work.folder.trial(trial.number).resolve()))
    trial.set_user_attr(MACHINE, socket.gethostname())
    values = work.study.values(trial)
    words = ", ".join(f"{key} {shown(value)}" for key, value in values.items())
    work.events.emit(Note(f"trial {trial.number} ({trial.number + 1} of {work.study.most}): {words}"))
    try:
        _carry_through(work, trial, values)
    except (InterruptedRunError, RunTakenError, OSError):
        raise
    except Exception as error:
        refuse_to_go_on()
        message = str(error) if isinstance(error, KdcliError) else f"{type(error).__name__}: {error}"
        work.study.failed(trial, message)
        work.events.emit(Note(f"trial {trial.number} failed: {message}", warning=True))
        return message
    return None


def _carry_through(work: _Work, trial: Trial, values: Combination) -> None:
    """A student per seed, until all have a score or the trial has lost."""
    study, seeds = work.study, work.loaded.sweep.seeds
    scores = study.scored(trial)
    twin = study.twin(trial)
    if twin is not None and not scores:
        scores = study.scored(twin)
        trial.set_user_attr(TWIN, twin.number)
        study.note_score(trial, scores)
        work.events.emit(Note(f"trial {trial.number} has the values of trial {twin.number}, and so its scores"))
    for place, seed in enumerate(seeds, 1):
        if seed not in scores:
            scores[seed] = _scored(work, trial.number, seed, values)
            study.note_score(trial, scores)
            _say_score(work, trial.number, seed, scores)
        so_far = [scores[one] for one in seeds[:place]]
        decides = place < len(seeds) and seeds[place] not in scores
        if place < len(seeds) and study.loses(trial, so_far) and decides:
            study.pruned(trial)
            work.events.emit(Note(f"trial {trial.number} is pruned: its mean so far is below the median of the others"))
            return
    study.complete(trial, [scores[seed] for seed in seeds])


def _scored(work: _Work, number: int, seed: int, values: Combination) -> float:
    request = with_values(work.request, work.loaded, values).model_copy(update={"seed": seed})
    if work.checked.once:
        request = request.model_copy(update={"teachers": str(work.folder.teachers.resolve())})
    return work.score(request, _quieter(work), work.folder.run(number, seed), work.cache_limit)


def _say_score(work: _Work, number: int, seed: int, scores: dict[int, float]) -> None:
    metric, best = work.checked.plan.task.metric, work.study.best()
    mean = f", mean so far {fmean(scores.values()):.4f}" if len(scores) > 1 else ""
    known = "" if best is None else f"; best trial so far {best.number} with {best.value:.4f}"
    work.events.emit(Note(f"trial {number}, seed {seed}: dev {metric} {scores[seed]:.4f}{mean}{known}"))


def _quieter(work: _Work) -> Events:
    """Listeners of one run, of which the sweep's hear progress alone, and each warning once."""

    def listen(event: Event) -> None:
        if isinstance(event, Note) and event.warning and event.text not in work.warned:
            work.warned.add(event.text)
            work.events.emit(event)
        elif isinstance(event, _PROGRESS):
            work.events.emit(event)

    return Events([listen])
