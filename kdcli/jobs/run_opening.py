"""Opening a run: a new one, or one that goes on; on one process or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from kdcli.engine.events import Events, Note, RunOpened
from kdcli.engine.loop import Trainer
from kdcli.engine.profile import Profile
from kdcli.engine.runtime import make_accelerator
from kdcli.errors import Problem, RequestError
from kdcli.jobs.metric_logs import MetricsFile, Trackers
from kdcli.jobs.ownership import owned
from kdcli.jobs.request_checks import (
    Prepared,
    check_cheaply,
    prepare,
    removed_on_error,
    with_absolute_paths,
    with_starter_defaults,
)
from kdcli.jobs.run_folder import RunFolder, find_run, new_run
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.settings import Asked


@dataclass
class OpenRun:
    """A run at work.

    Attributes:
        folder: where everything goes.
        prepared: task and plan.
        trainer: runs the phases.
        events: who is told; silent on all processes but the first.
        cache_limit: bytes that the teachers' kept answers may have on disk.
    """

    folder: RunFolder
    prepared: Prepared
    trainer: Trainer
    events: Events
    cache_limit: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.trainer.accelerator.is_main_process)

    def once(self, work: Callable[[], object]) -> None:
        """Do something that writes files on the first process alone, while the others wait."""
        if self.is_main:
            work()
        self.trainer.accelerator.wait_for_everyone()


@contextmanager
def opened(
    request: TrainRequest | None,
    out: Path | None,
    resume: bool,
    events: Events,
    cache_limit: int = 0,
    check: Callable[[Plan], None] = lambda plan: None,
) -> Iterator[OpenRun]:
    """Check, plan and open a run, which no other process writes into until the block ends.

    Args:
        request: what was asked for; None with ``resume`` takes everything from the run.
        out: the run folder, or None for a new name (with ``resume``: for the latest run).
        resume: go on with a run that is there.
        events: who is told.
        cache_limit: bytes that the teachers' kept answers may have on disk.
        check: raises a RequestError for a plan that the command cannot carry out.

    Raises:
        RequestError: with everything that is wrong, or another process is at work in the run; nothing is left behind of a run
            that could not begin.
        RunFailedError: what the run has kept is damaged.
    """
    stored: Plan | None = None
    if request is not None:
        request = with_starter_defaults(with_absolute_paths(request))
    if resume:
        stored = find_run(out).read_plan()
        request = _same_request(request, stored)
    assert request is not None
    asked = check_cheaply(request)
    accelerator = make_accelerator(asked.precision, str(asked.device))
    if not accelerator.is_main_process:
        events = Events()
    with ExitStack() as owning:
        run = _agreed(accelerator, lambda: _owned(find_run(out) if resume else _new(asked, out), resume, owning))
        if accelerator.is_main_process:
            with nullcontext() if resume else removed_on_error(run):
                prepared = prepare(asked, run, events).on(accelerator.num_processes)
                check(prepared.plan)
                if stored is not None:
                    _refuse_changed(stored, prepared.plan, run)
                run.write_plan(prepared.plan)
            events.emit(RunOpened(str(run.path)))
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            prepared = prepare(asked, run, events, sized=False).on(accelerator.num_processes)
        with _trained_by(accelerator, run, prepared, request, events, cache_limit) as open_run:
            yield open_run


def _owned(run: RunFolder, resume: bool, owning: ExitStack) -> RunFolder:
    """The run, once this process owns it; what was looked at before might have changed since."""
    owning.enter_context(owned(run.path))
    if resume:
        run.refuse_damage()
    else:
        run.refuse_begun()
        run.remove_start()
    return run


@contextmanager
def _trained_by(
    accelerator: Accelerator, run: RunFolder, prepared: Prepared, request: TrainRequest, events: Events, cache_limit: int
) -> Iterator[OpenRun]:
    """The run with all who keep what happens."""
    plan = prepared.plan
    recipe, precision, device = plan.recipe, plan.precision, plan.device
    accelerator = make_accelerator(precision, str(device), run.log, request.track)
    if accelerator.is_main_process:
        run.point_latest_here()
        events.add(MetricsFile(run.metrics))
        events.add(Trackers(accelerator, run.path.name, {"recipe": recipe.name, "seed": request.seed}))
    events.emit(Note(f"run folder: {run.path}"))
    if accelerator.num_processes > 1:
        events.emit(Note(f"{accelerator.num_processes} processes share each batch of {recipe.training.batch_size}"))
    trainer = Trainer(accelerator, recipe.training, events, run.checkpoints, profile=Profile(accelerator.device))
    try:
        yield OpenRun(run, prepared, trainer, events, cache_limit)
    finally:
        accelerator.end_training()


def _new(asked: Asked, out: Path | None) -> RunFolder:
    request, data = asked.request, asked.request.data
    student = request.student or asked.loaded.recipe.student.size
    task = data.task or ("starter" if data.is_starter else Path(data.data or "task").stem)
    return new_run(out, task, student if request.command == "distill" and student else request.command)


def _agreed(accelerator: Accelerator, choose: Callable[[], RunFolder]) -> RunFolder:
    """The first process's choice, on all processes."""
    chosen: list[object] = [choose() if accelerator.is_main_process else None]
    run = broadcast_object_list(chosen)[0]
    assert isinstance(run, RunFolder)
    return run


def _same_request(request: TrainRequest | None, stored: Plan) -> TrainRequest:
    """The stored request; refuses flags that differ from it."""
    original = TrainRequest.model_validate(stored.request)
    if request is not None and request != original:
        raise RequestError(
            Problem(
                "--resume",
                "the flags differ from those that the run was started with",
                "the same flags, or none besides --resume and --out",
                request.changes_from(original),
            )
        )
    return original


def _refuse_changed(stored: Plan, now: Plan, run: RunFolder) -> None:
    """A run goes on with the data and the teachers that it began with."""
    before = {f"split {name}": split.fingerprint for name, split in stored.task.splits.items()}
    before |= {f"teacher {teacher.name}": teacher.fingerprint for teacher in stored.teachers}
    after = {f"split {name}": split.fingerprint for name, split in now.task.splits.items()}
    after |= {f"teacher {teacher.name}": teacher.fingerprint for teacher in now.teachers}
    changed = [name for name in before if before[name] != after.get(name)]
    changed += ["recipe"] if stored.recipe != now.recipe else []
    changed += ["classes"] if stored.task.labels != now.task.labels else []
    if changed:
        raise RequestError(
            Problem(
                str(run.plan),
                "what the run was made from has changed since",
                "the same files",
                ", ".join(changed),
                "start a new run",
            )
        )
