"""``kdcli evaluate``: any number of models on the same split, with the proof of what they keep.

Find what was named, read the data once, ask every model, compare, hold the gates, write what belongs into a run's folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kdcli.atomic_files import write_text
from kdcli.data.splits import DEV, TEST
from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_scored
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.errors import Problem, Problems, RequestError
from kdcli.evaluation.comparison import ModelOutputs, compare, labelled
from kdcli.evaluation.document import Evaluation
from kdcli.evaluation.gates import Gate, with_gates
from kdcli.jobs.evaluation_files import kept_layer_comparison, write_comparison, write_proof
from kdcli.jobs.evaluation_targets import Target, find_targets, recipe_names
from kdcli.jobs.layer_comparison import measure_layers, suggested_recipe
from kdcli.jobs.model_outputs import Questions, outputs_of, task_of
from kdcli.jobs.ownership import owned
from kdcli.jobs.request_checks import load_task_of
from kdcli.jobs.run_folder import RunFolder, refuse_unwritable
from kdcli.plan.hardware import resolve_device
from kdcli.plan.plan import DISTILL, Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers
from kdcli.tasks.kind import Kind


@dataclass(frozen=True)
class EvaluateRequest:
    """What ``kdcli evaluate`` was asked for.

    Attributes:
        targets: runs, folders of runs, checkpoints, ONNX files, tables of predictions, each perhaps as ``name=path``; none
            for the latest run.
        teachers: models to hold the others against, comma-separated, as ``kdcli distill`` takes them.
        data: for models that belong to no run the data; for a run, other data than it was trained with.
        split: dev or test; None takes test where there is one.
        max_length: tokens per text; None takes the run's, or what the checkpoint's tokenizer says.
        gates: limits that every student (or model) must keep to.
        out: folder for the document, the report and the tables; None writes into the run, if there is one and its own data
            were scored.
        report: write report and tables.
        suggest_map: file for the run's recipe with the layer map that would fit best.
    """

    targets: tuple[str, ...] = ()
    teachers: str | None = None
    data: DataRequest = field(default_factory=DataRequest)
    split: Literal["dev", "test"] | None = None
    max_length: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gates: tuple[Gate, ...] = ()
    out: Path | None = None
    report: bool = True
    suggest_map: Path | None = None


@dataclass(frozen=True)
class Evaluated:
    """What was found, and where it was written to.

    Attributes:
        evaluation: the document.
        report: the HTML page, or None.
    """

    evaluation: Evaluation
    report: Path | None


def evaluate(request: EvaluateRequest, events: Events) -> Evaluated:
    """Score everything that was named on one split.

    A run keeps the result: ``evaluation.json`` for dev, ``evaluation-test.json`` for test, ``report.html``, ``tables/``.

    Raises:
        RequestError: nothing there, wrong data, labels that do not match, a gate without its figure.
    """
    targets = find_targets(request.targets)
    writes = len(targets) == 1 and targets[0].kind == "run" and request.out is None and request.data.data is None
    with owned(targets[0].path) if writes else nullcontext():
        return _evaluate(request, targets, events)


def _evaluate(request: EvaluateRequest, targets: Sequence[Target], events: Events) -> Evaluated:
    plans = {target.name: RunFolder(target.path).read_plan() for target in targets if target.kind == "run"}
    for target in targets:
        if target.kind == "run":
            RunFolder(target.path).refuse_half(plans[target.name])
    runs = [target for target in targets if target.kind == "run"]
    alone = runs[0] if len(runs) == 1 else None
    _check(request, runs, plans)
    events.emit(WorkStarted("reading the data"))
    task, own_data = _task(request, targets, plans)
    split = _split(task, request.split or ("test" if request.data.test is not None else None))
    rows = labelled(task, split)
    events.emit(Note(f"{task.name}, {split} split, {len(rows)} rows from {rows.source}"))
    for note in task.notes:
        events.emit(Note(note))
    _refuse_other_classes(task, targets, plans)
    questions = Questions(task, split, resolve_device(request.device), events, request.max_length)
    notes = _other_data(task, split, runs, plans)
    notes += [note for plan in plans.values() for note in plan.notes_on_baseline] if alone is not None else []
    entries = _entries(questions, request, targets, plans)
    events.emit(WorkStarted("comparing"))
    evaluation = with_gates(compare(task, split, entries, [*notes, *questions.notes]), request.gates)
    for note in evaluation.notes:
        events.emit(Note(note))
    if len(targets) == 1 and alone is not None and own_data and request.out is None:
        run = RunFolder(alone.path)
        page = write_proof(run, plans[alone.name], task, evaluation, entries, questions.device, events, request.report)
    elif request.out is not None:
        page = write_comparison(request.out, task, evaluation, entries, events, request.report)
    else:
        page = None
    if alone is not None and request.suggest_map is not None:
        _suggest_map(request.suggest_map, RunFolder(alone.path), plans[alone.name], task, events, request)
    return Evaluated(evaluation, page)


def _task(request: EvaluateRequest, targets: Sequence[Target], plans: dict[str, Plan]) -> tuple[Task, bool]:
    """What is scored on, and whether that and the models are what a run would be scored on without further words."""
    given = request.data
    runs = [target for target in targets if target.kind == "run"]
    asked = TrainRequest.model_validate(plans[runs[0].name].request).data if runs else None
    if given.is_one_file and (asked is None or asked.task is not None):
        task = load_scored(given, _known_task(targets, plans))
    elif asked is not None:
        more = replace(given, data=None, test=given.data) if given.is_one_file else given
        fields = {name: value for name, value in vars(more).items() if value is not None}
        task = load_task_of(replace(asked, **fields), RunFolder(runs[0].path))
    elif given.is_starter:
        raise RequestError(
            Problem(
                " ".join(request.targets),
                "belongs to no run, so it has to be said what it is to be scored on",
                "--data FILE, or --task with --data DIR",
            )
        )
    else:
        task = load_task_of(given, RunFolder(Path()))
    task = task.with_all_of(_known_task(targets, plans))
    task.kind.metric(task.metric)
    said = any((given.eval, given.test, given.metric, request.max_length, request.teachers))
    own = asked is not None and given.is_starter and not said
    return task, own


def _known_task(targets: Sequence[Target], plans: dict[str, Plan]) -> Kind | None:
    """The task of the first model that says what it is for."""
    for target in targets:
        known = plans[target.name].task.known() if target.kind == "run" else task_of(target)
        if known is not None:
            return known
    return None


def _refuse_other_classes(task: Task, targets: Sequence[Target], plans: dict[str, Plan]) -> None:
    """Before any model is asked, find those whose classes are not the task's.

    Raises:
        RequestError: with all of them.
    """
    problems = Problems()
    for target in targets:
        planned = plans[target.name].task if target.kind == "run" else None
        kind, names = outputs_of(target) if planned is None else (planned.kind, planned.labels)
        try:
            if names and (kind, tuple(names)) != (task.kind.name, task.kind.output_names):
                task.kind.order_of(str(target.path), names, kind)
        except RequestError as error:
            problems.extend(error)
    problems.raise_if_any()


def _entries(
    questions: Questions, request: EvaluateRequest, targets: Sequence[Target], plans: dict[str, Plan]
) -> list[ModelOutputs]:
    """What all models say: runs with their teachers, then the teachers that were named, then other models.

    A run's student is held against its own teachers and those that were named; any other model against the named ones alone,
    but for what lies in a run's folder, which is the run's.
    """
    runs = [target for target in targets if target.kind == "run"]
    read = {target: questions.model(target) for target in targets if target.kind == "predictions"}
    entries = (
        questions.run_alone(RunFolder(runs[0].path), plans[runs[0].name])
        if len(runs) == 1
        else _entries_of_runs(questions, runs, plans)
    )
    named: list[ModelOutputs] = []
    if request.teachers is not None:
        named = questions.named_teachers(request.teachers, {entry.name for entry in entries if entry.role == "teacher"})
    more = tuple(entry.name for entry in named if entry.role == "teacher")
    together = next((entry.name for entry in named if entry.role == "ensemble"), None)
    taught = ("student", "without-teachers", "export")
    entries = [replace(one, teachers=one.teachers + more) if one.role in taught else one for one in entries]
    of_runs = {Path(one.path).resolve().parent: one for one in entries if one.role == "student" and one.path is not None}
    for target in targets:
        if target.kind != "run":
            entry = read.get(target) or questions.model(target)
            own = next((of_runs[folder] for folder in target.path.resolve().parents if folder in of_runs), None)
            teachers, mean = (more, together) if own is None else (own.teachers, own.ensemble)
            entries.append(replace(entry, teachers=teachers, ensemble=mean))
    return [*entries, *named]


def _entries_of_runs(questions: Questions, runs: Sequence[Target], plans: dict[str, Plan]) -> list[ModelOutputs]:
    """Every run's students under the run's name; teachers that several runs share once."""
    entries: list[ModelOutputs] = []
    names = recipe_names(runs, [plans[target.name] for target in runs])
    for target, recipe in zip(runs, names, strict=True):
        seen = {entry.path: entry.name for entry in entries if entry.role == "teacher" and entry.path is not None}
        run = RunFolder(target.path)
        found = questions.run_among_others(run, plans[target.name], target.name, recipe, seen)
        known = {(entry.role, entry.name) for entry in entries}
        entries += [entry for entry in found if (entry.role, entry.name) not in known]
    return entries


def _split(task: Task, asked: str | None) -> str:
    split = asked or (TEST if TEST in task.splits or (TEST in task.unscored and DEV not in task.splits) else DEV)
    if split in task.unscored:
        raise task.unscored[split]
    if split not in task.splits:
        raise RequestError(
            Problem(
                f"--split {split}",
                f"{task.name} has no such split with labels",
                " or ".join(name for name in (DEV, TEST) if name in task.splits),
                remedy="--test FILE with a column of classes",
            )
        )
    return split


def _check(request: EvaluateRequest, runs: Sequence[Target], plans: dict[str, Plan]) -> None:
    """What can be found wrong before anything is read.

    Raises:
        RequestError: a run without its student, a gate without a teacher, a place that cannot be written to.
    """
    problems = [
        Problem(
            str(target.path),
            "has no student yet",
            remedy=shlex.join(["kdcli", "distill", "--resume", "--out", str(target.path)]),
        )
        for target in runs
        if plans[target.name].student is not None and not RunFolder(target.path).student.is_dir()
    ]
    if problems:
        raise RequestError(problems)
    has_teachers = request.teachers is not None or any(
        plan.student is None or asks_teachers(DISTILL, plan.recipe) for plan in plans.values()
    )
    for gate in request.gates:
        if gate.needs_teacher and not has_teachers:
            raise RequestError(Problem(f"--{gate.name}", "needs a teacher to compare with", remedy="--teachers FOLDER"))
    if request.suggest_map is not None and len(runs) != 1:
        raise RequestError(Problem(f"--suggest-map {request.suggest_map}", "is about one run", f"{len(runs)} were named"))
    for path, flag in ((request.out, "--out"), (request.suggest_map, "--suggest-map")):
        if path is not None:
            refuse_unwritable(path.absolute(), f"{flag} {path}")


def _other_data(task: Task, split: str, runs: Sequence[Target], plans: dict[str, Plan]) -> list[str]:
    """What a reader should know where runs were trained on other data than the first one."""
    notes = []
    for name in ("train", DEV):
        by_data: dict[str, list[str]] = {}
        for target in runs:
            known = plans[target.name].task.splits.get(name)
            by_data.setdefault(known.fingerprint if known else "", []).append(target.name)
        if len(by_data) > 1:
            groups = "; ".join(", ".join(names) for names in by_data.values())
            notes.append(f"the runs were made with different {name} splits ({groups}): they differ in more than their recipe")
    return notes


def _suggest_map(path: Path, run: RunFolder, plan: Plan, task: Task, events: Events, request: EvaluateRequest) -> None:
    insides = kept_layer_comparison(run) or measure_layers(run, plan, task, events, resolve_device(request.device))
    if insides is None or not insides.teachers:
        raise RequestError(
            Problem(f"--suggest-map {path}", "needs a run whose teachers show their insides", found=str(run.path))
        )
    write_text(path, suggested_recipe(plan, insides, str(run.path)))
    events.emit(Note(f"layer maps that fit best: {path}; kdcli distill --recipe {path} …"))
