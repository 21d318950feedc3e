"""What both trainings begin with: the task, the models that are named, and the plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdcli.atomic_files import temporary_folder, unfinished, whole_folder
from kdcli.data import starter_data
from kdcli.data.augmentation import with_augmentation
from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_task
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.runtime import check_trackers
from kdcli.errors import Problem, RequestError
from kdcli.jobs.ownership import LOCK
from kdcli.jobs.run_folder import RunFolder
from kdcli.models.checkpoints import ALIASES, Reference, describe, parse_references
from kdcli.models.starter_teachers import STARTER_TEACHERS, write_starter_teacher
from kdcli.models.student import parse_size
from kdcli.plan.derived_values import copies
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asked_student, make_plan
from kdcli.plan.settings import Asked, load_recipe, on_this_machine
from kdcli.recipe.catalogue import BASELINE_RECIPE, DEFAULT_RECIPE, shipped
from kdcli.recipe.schema import AUTO, Recipe, settled
from kdcli.recipe.yaml_document import KeyPath, Override

_STARTER_RATES: tuple[tuple[KeyPath, object], ...] = (
    (("teachers", "cofinetune", "learning_rate"), 8e-4),
    (("teachers", "cofinetune", "epochs"), 4),
    (("training", "learning_rate"), 1e-3),
    (("training", "batch_size"), 32),
    (("training", "precision"), "fp32"),
    (("stages", "*", "learning_rate"), None),
)
_STARTER_INIT: tuple[KeyPath, object] = (("student", "init", "weights"), "finetuned")
_SIZE_OR_NAME = re.compile(r"\d+L(-\d+H(-\d+A)?)?|teacher", re.IGNORECASE)
_STARTER_EPOCHS: tuple[KeyPath, object] = (("stages", 0, "epochs"), 3)


@dataclass(frozen=True)
class Prepared:
    """A request that can be carried out."""

    task: Task
    plan: Plan

    def on(self, processes: int) -> Prepared:
        """The same on so many processes."""
        return replace(self, plan=self.plan.model_copy(update={"processes": processes}))


def with_starter_defaults(request: TrainRequest) -> TrainRequest:
    """The request, with what models need that start from random weights; the user's own values stay on top.

    The starter task's teachers know nothing before they are co-finetuned, so the rates are those of training from scratch and
    the student is cut from a co-finetuned teacher. Recipes of the user's own are left as they are.
    """
    if not request.data.is_starter or request.recipe not in shipped():
        return request
    values = list(_STARTER_RATES)
    values.append((("stages", 0, "epochs"), 5) if request.recipe == BASELINE_RECIPE else _STARTER_INIT)
    if request.recipe == DEFAULT_RECIPE:
        values.append(_STARTER_EPOCHS)
    defaults = tuple(Override(path, value, "the starter task's defaults") for path, value in values)
    if request.overrides[: len(defaults)] == defaults:
        return request
    return request.model_copy(update={"overrides": defaults + request.overrides})


def with_absolute_paths(request: TrainRequest) -> TrainRequest:
    """The request with the paths of everything that is there made absolute, so that the run can be used from elsewhere."""
    student, recipe, data = request.student, request.recipe, request.data
    if student is not None and _SIZE_OR_NAME.fullmatch(student) is None and Path(student).is_dir():
        student = str(Path(student).absolute())
    if recipe not in shipped() and Path(recipe).is_file():
        recipe = str(Path(recipe).absolute())
    paths = {name: getattr(data, name) for name in ("data", "eval", "test", "unlabelled")}
    there: dict[str, Any] = {
        name: str(Path(path).resolve()) for name, path in paths.items() if path is not None and Path(path).exists()
    }
    return request.model_copy(
        update={
            "teachers": ",".join(_absolute(part.strip()) for part in request.teachers.split(",")),
            "student": student,
            "recipe": recipe,
            "data": replace(data, **there),
        }
    )


def _absolute(part: str) -> str:
    """``./my-bert`` as ``my-bert=/…/my-bert``; what is no folder, or would not be read as one then, as it is."""
    name, equals, path = part.partition("=")
    if not equals:
        name, path = "", part
    if not path or path in ALIASES or not Path(path).is_dir() or "," in str(Path(path).absolute()):
        return part
    if equals:
        return f"{name}={Path(path).absolute()}"
    return ",".join(
        f"{reference.name}={Path(reference.checkpoint).absolute()}" for reference in parse_references(part, "--teachers")
    )


def check_cheaply(request: TrainRequest) -> Asked:
    """Find everything wrong that can be found before data or models are read, or anything is written.

    Returns:
        The request with its recipe, and what of this machine it takes.

    Raises:
        RequestError: recipe, teachers, student size, tracker, device or precision.
    """
    loaded = load_recipe(request)
    parse_references(request.teachers, "--teachers")
    if request.command == "distill":
        parse_size(asked_student(request, loaded))
    check_trackers(request.track)
    return on_this_machine(request, loaded)


def prepare(asked: Asked, run: RunFolder, events: Events, *, sized: bool = True) -> Prepared:
    """Read the task (or make the starter task inside the run folder) and resolve the plan.

    Raises:
        RequestError: with everything that is wrong.
    """
    request = asked.request
    references = parse_references(request.teachers, "--teachers")
    is_starter = request.data.is_starter
    if is_starter:
        references = _starter_references(references, run, events)
    else:
        events.emit(WorkStarted("reading the data"))
    task = load_task_of(request.data, run)
    task.kind.metric(task.metric)
    task = _augmented(task, request, asked.loaded.recipe)
    for reference in references:
        events.emit(Note(_which_model(reference, run)))
    plan = make_plan(asked, task, references, starter=is_starter, sized=sized)
    for note in plan.notes:
        events.emit(Note(note))
    return Prepared(task, plan)


def _augmented(task: Task, request: TrainRequest, recipe: Recipe) -> Task:
    """The task with the texts that the recipe makes from its training texts, where there are teachers to answer them."""
    if request.command != "distill" or not recipe.needs_teachers():
        return task
    about = recipe.augmentation
    made = copies(len(task.train)) if about.copies == AUTO else settled(about.copies)
    return with_augmentation(task, made, about.methods, about.share, request.seed)


def load_task_of(data: DataRequest, run: RunFolder) -> Task:
    """The task of a run: from the user's files, or the starter task that lies in the run folder."""
    if not data.is_starter:
        return load_task(data)
    task = load_task(replace(data, task=None, data=str(run.starter.resolve() / "data")))
    return replace(task, name=starter_data.NAME)


def _starter_references(references: list[Reference], run: RunFolder, events: Events) -> list[Reference]:
    """The teachers of the starter task: ``bert`` and ``roberta`` are small models made on the spot."""
    names = {ALIASES[name]: name for name in STARTER_TEACHERS}
    for reference in references:
        if reference.checkpoint in ALIASES.values() and reference.checkpoint not in names:
            raise RequestError(
                Problem(
                    f"--teachers {reference.name}",
                    "the starter task has no such teacher",
                    ", ".join(STARTER_TEACHERS) + ", or a folder",
                    remedy="give --task or --data to distill the real model",
                )
            )
        if reference.checkpoint not in names:
            describe(reference)
    wanted = sorted({names[reference.checkpoint] for reference in references if reference.checkpoint in names})
    events.emit(
        Note("no --task and no --data: the starter task (which library is a docstring from?), made from text on this machine")
    )
    _make_starter(run, wanted, events)
    return [
        replace(reference, checkpoint=str(run.starter.resolve() / names[reference.checkpoint]))
        if reference.checkpoint in names
        else reference
        for reference in references
    ]


def _make_starter(run: RunFolder, teachers: list[str], events: Events) -> None:
    if run.starter.is_dir():
        return
    events.emit(WorkStarted("collecting docstrings for the starter task"))
    with whole_folder(run.starter, sealed=True) as partial:
        starter_data.write_starter_data(partial / "data")
        texts = load_task(DataRequest(data=str(partial / "data"))).train.texts
        for name in teachers:
            events.emit(WorkStarted(f"making a small {name} with a vocabulary of its own"))
            write_starter_teacher(name, texts, partial / name)


def _which_model(reference: Reference, run: RunFolder) -> str:
    if Path(reference.checkpoint).parent == run.starter.resolve():
        return f"teacher {reference.name}: a small {reference.name} made for the starter task, not the pre-trained model"
    return f"teacher {reference.name}: {reference.checkpoint}"


@contextmanager
def removed_on_error(run: RunFolder) -> Iterator[None]:
    """Leave nothing behind of a run that could not begin, and remove nothing that it has not made; the run is new and owned."""
    try:
        with unfinished(run.path) if run.path in run.made else nullcontext():
            yield
    except BaseException:
        run.remove_start()
        (run.path / LOCK).unlink(missing_ok=True)
        for folder in reversed(run.made):
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def dry_plan(request: TrainRequest, events: Events) -> Plan:
    """The plan alone; what the starter task needs is made in a temporary folder."""
    with temporary_folder() as folder:
        return prepare(check_cheaply(with_starter_defaults(request)), RunFolder(folder), events).plan
