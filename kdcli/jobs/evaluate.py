"""``kdcli evaluate``: the student and every teacher of a run, or one checkpoint, on the same split."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kdcli.data.sources import DataRequest
from kdcli.data.task import DEV, TEST, Task
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.inference import EVALUATION_BATCH
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import Answer, Evaluation, compare_on
from kdcli.evaluation.metrics import check_metric
from kdcli.files import write_json
from kdcli.jobs.distill import student_answers, students
from kdcli.jobs.preparation import load_task_of
from kdcli.jobs.run_folder import RunFolder, find_run
from kdcli.jobs.teachers import answers_of, load_teachers, trained_folder
from kdcli.models.checkpoints import Reference, describe
from kdcli.models.loading import text_limit
from kdcli.plan.hardware import resolve_device
from kdcli.plan.labels import match_labels
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers


@dataclass(frozen=True)
class EvaluateRequest:
    """What ``kdcli evaluate`` was asked for.

    Attributes:
        target: a run, a checkpoint folder, or None for the latest run.
        data: for a checkpoint the data; for a run, other data than it was trained with.
        split: dev or test; None takes test where there is one.
        max_length: tokens per text; None takes the run's, or what the checkpoint's tokenizer says.
    """

    target: Path | None = None
    data: DataRequest = field(default_factory=DataRequest)
    split: Literal["dev", "test"] | None = None
    max_length: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


def evaluate(request: EvaluateRequest, events: Events) -> Evaluation:
    """Score a run's student and teachers, or a checkpoint, on one split.

    A run keeps the result: ``evaluation.json`` for dev, ``evaluation-test.json`` for test.

    Raises:
        RequestError: no such run or checkpoint, wrong data, labels that do not match.
    """
    if request.target is not None and not (request.target / "plan.yaml").is_file():
        return _evaluate_checkpoint(request, request.target, events)
    run = find_run(request.target)
    return _evaluate_run(request, run, events)


def _evaluate_run(request: EvaluateRequest, run: RunFolder, events: Events) -> Evaluation:
    plan = run.read_plan()
    asked = TrainRequest.model_validate(plan.request)
    if asked.command == "distill" and not run.student.is_dir():
        raise RequestError(Problem(str(run.path), "has no student yet", remedy=f"kdcli distill --resume --out {run.path}"))
    given = request.data
    own_data = given.is_starter and given.eval is None and given.test is None
    data = asked.data if own_data else _merged(asked.data, given)
    events.emit(WorkStarted("reading the data"))
    task = load_task_of(data, run)
    _refuse_other_classes(task, plan)
    split = _split(task, request.split)
    events.emit(Note(f"{run.path}: {task.name}, {split} split, {len(task.splits[split])} rows"))
    answers = _answers(request, run, plan, task, split, events)
    evaluation = compare_on(task, split, answers)
    if own_data:
        path = run.evaluation if split == DEV else run.evaluation.with_name(f"evaluation-{split}.json")
        write_json(path, evaluation.model_dump())
    return evaluation


def _merged(original: DataRequest, given: DataRequest) -> DataRequest:
    """The run's data request with what was given on top."""
    fields = {name: value for name, value in vars(given).items() if value is not None}
    return replace(original, **fields)


def _answers(request: EvaluateRequest, run: RunFolder, plan: Plan, task: Task, split: str, events: Events) -> list[Answer]:
    device = resolve_device(request.device)
    length = request.max_length or plan.recipe.training.max_length
    answers: list[Answer] = []
    for name, folder, role in students(run):
        events.emit(WorkStarted(f"asking the {name}"))
        answers.append((name, role, *student_answers(folder, task, split, length, device)))
    if plan.student is None or asks_teachers("distill", plan.recipe):
        for teacher in load_teachers(plan, run):
            events.emit(WorkStarted(f"asking teacher {teacher.name}"))
            folder = trained_folder(plan.teacher(teacher.name), run)
            logits = answers_of(teacher, folder, task.splits[split], length, device, EVALUATION_BATCH)
            answers.append((teacher.name, "teacher", logits, teacher.parameter_count))
    return answers


def _evaluate_checkpoint(request: EvaluateRequest, folder: Path, events: Events) -> Evaluation:
    if not folder.is_dir():
        raise RequestError(Problem(str(folder), "there is no such run or checkpoint folder"))
    if request.data.is_starter:
        raise RequestError(
            Problem(str(folder), "is a checkpoint, so it has to be said what it is to be scored on", "--task or --data")
        )
    found = describe(Reference(folder.name, str(folder), "checkpoint"))
    events.emit(WorkStarted("reading the data"))
    task = load_task_of(request.data, RunFolder(folder))
    check_metric(task.metric, len(task.labels))
    if found.head_labels is None:
        raise RequestError(
            Problem(str(folder), "has no classification head", "a checkpoint that was fine-tuned for classification")
        )
    order = match_labels(f"checkpoint {folder.name}", found.head_labels, task)
    split = _split(task, request.split)
    length = request.max_length or text_limit(found)
    events.emit(WorkStarted(f"asking {folder.name}"))
    logits, size = student_answers(folder, task, split, length, resolve_device(request.device))
    return compare_on(task, split, [(folder.name, "student", logits[:, order], size)])


def _split(task: Task, asked: str | None) -> str:
    split = asked or (TEST if TEST in task.splits else DEV)
    if split not in task.splits:
        raise RequestError(
            Problem(f"--split {split}", f"{task.name} has no such split", " or ".join(task.splits), remedy="--test FILE")
        )
    return split


def _refuse_other_classes(task: Task, plan: Plan) -> None:
    if list(task.labels) != plan.task.labels:
        raise RequestError(
            Problem(
                "the data",
                "its classes are not those that the run was trained for",
                ", ".join(plan.task.labels[:20]),
                ", ".join(task.labels[:20]),
            )
        )
