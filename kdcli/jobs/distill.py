"""``kdcli distill``: teachers → student → proof.

Co-finetune the teachers that need it, check that they know the task, build the student, train it through the recipe's stages,
train the same student without teachers where that was asked for, and score all of them on the dev split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.data.alignment import align
from kdcli.data.batching import Samples
from kdcli.data.task import DEV, TRAIN, Task
from kdcli.data.tokens import TokenView, tokenise
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.inference import EVALUATION_BATCH, predict
from kdcli.engine.loop import Phase, Stage
from kdcli.evaluation.comparison import Answer, Evaluation, Role, compare_on
from kdcli.files import whole_folder, write_json, write_text
from kdcli.jobs.card import model_card
from kdcli.jobs.opening import OpenRun, opened
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.teachers import (
    answers_of,
    dev_scores,
    load_teachers,
    refuse_weak_teachers,
    train_teachers,
    trained_folder,
    weights_folder,
)
from kdcli.losses.hidden import HiddenMseTerm
from kdcli.losses.labels import HardLabelsTerm, SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.loading import load_classifier, load_tokenizer
from kdcli.models.student import (
    STUDENT,
    BuiltStudent,
    Size,
    StudentLearner,
    build_student,
    save_student,
    student_config,
)
from kdcli.models.teachers import Ensemble, Teacher
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers
from kdcli.recipe.schema import HardLabels, HiddenMse, Loss, SoftLabels

DISTILL = "distill"
BASELINE = "baseline"
Logits = NDArray[np.float32]


def distill(
    request: TrainRequest | None, events: Events, out: Path | None = None, resume: bool = False
) -> tuple[RunFolder, Evaluation]:
    """Make a student and the proof of its worth; returns the run folder and the scores on dev.

    Raises:
        RequestError: the request is wrong; nothing was written.
        GateError: a teacher is at chance.
        InterruptedRunError: a signal asked to stop; ``resume`` goes on.
    """
    with opened(request, out, resume, events) as open_run:
        plan, run = open_run.prepared.plan, open_run.folder
        teachers: list[Teacher] = []
        if asks_teachers("distill", plan.recipe):
            train_teachers(open_run)
            teachers = load_teachers(plan, run)
        teacher_logits = _teachers_on_dev(open_run, teachers)
        refuse_weak_teachers(teacher_logits, open_run.prepared.task, bool(plan.request["allow_weak_teachers"]), open_run.events)
        _train_students(open_run, teachers)
        evaluation = _evaluate(open_run, teachers, teacher_logits)
        open_run.once(lambda: _write_results(run, plan, evaluation))
        return run, evaluation


def _teachers_on_dev(open_run: OpenRun, teachers: Sequence[Teacher]) -> dict[str, Logits]:
    plan, task = open_run.prepared.plan, open_run.prepared.task
    if teachers:
        open_run.events.emit(WorkStarted("asking the teachers about the dev split"))
    device, length = open_run.trainer.accelerator.device, plan.recipe.training.max_length
    return {
        teacher.name: answers_of(
            teacher,
            trained_folder(plan.teacher(teacher.name), open_run.folder),
            task.dev,
            length,
            device,
            EVALUATION_BATCH,
        )
        for teacher in teachers
    }


def _train_students(open_run: OpenRun, teachers: Sequence[Teacher]) -> None:
    """The student, and the baseline where it was asked for; each only if it is not there yet."""
    run, plan = open_run.folder, open_run.prepared.plan
    wanted = [name for name, folder, asked in _to_train(run, plan) if asked and not folder.is_dir()]
    if not wanted:
        return
    open_run.events.emit(WorkStarted("tokenising and aligning"))
    train, dev = _samples(open_run, TRAIN), _samples(open_run, DEV)
    _say_alignment(train, open_run.events)
    if DISTILL in wanted:
        device = open_run.trainer.accelerator.device
        dtype = torch.float32 if plan.precision == "fp32" else torch.bfloat16
        ensemble = Ensemble(teachers, _asked_layers(plan), dtype).to(device) if teachers else None
        built = _build(plan, run, plan.student_or_fail.weights)
        _train(open_run, DISTILL, "distilling the student", built, _stages(plan), train, dev, ensemble, run.student)
    if BASELINE in wanted:
        built = _build(plan, run, "pretrained")
        stages = plan.stages_of("distill")
        alone = [Stage(BASELINE, sum(stage.steps for stage in stages), [HardLabelsTerm()], stages[-1].learning_rates)]
        title = "training the same student without teachers"
        _train(open_run, BASELINE, title, built, alone, train, dev, None, run.baseline)


def _to_train(run: RunFolder, plan: Plan) -> list[tuple[str, Path, bool]]:
    return [(DISTILL, run.student, True), (BASELINE, run.baseline, plan.baseline)]


def _build(plan: Plan, run: RunFolder, weights: str) -> BuiltStudent:
    """The student before training, from the same seed whichever way it is trained."""
    student = plan.student_or_fail
    folder, seed = Path(student.tokenizer_folder), int(plan.request["seed"])
    from transformers import AutoConfig

    if student.source in plan.teacher_names:
        teacher = plan.teacher(student.source)
        folder = trained_folder(teacher, run) if weights == "finetuned" else weights_folder(teacher)
    source_config = AutoConfig.from_pretrained(student.tokenizer_folder, local_files_only=True)
    size = Size(student.layers, student.width, student.heads)
    config = student_config(source_config, size, student.copied_layers, plan.task.labels)
    return build_student(config, folder if student.copied_layers else None, student.copied_layers, seed)


def _train(
    open_run: OpenRun,
    name: str,
    title: str,
    built: BuiltStudent,
    stages: Sequence[Stage],
    train: Samples,
    dev: Samples,
    ensemble: Ensemble | None,
    folder: Path,
) -> None:
    plan, task = open_run.prepared.plan, open_run.prepared.task
    layers = {layer for stage in stages for term in stage.terms for layer in term.needs.hidden.get(STUDENT, ())}
    phase = Phase(
        name=name,
        title=title,
        learner=StudentLearner(built.model, layers, built.fresh),
        stages=stages,
        train=train,
        dev=dev,
        ensemble=ensemble,
        score=dev_scores(task),
        metric=task.metric,
        seed=int(plan.request["seed"]),
    )
    open_run.trainer.run(phase)
    tokenizer = load_tokenizer(Path(plan.student_or_fail.tokenizer_folder))

    def save() -> None:
        with whole_folder(folder) as partial:
            save_student(built.model, tokenizer, partial, plan.recipe.training.max_length)

    open_run.once(save)


def _stages(plan: Plan) -> list[Stage]:
    """The recipe's stages with their terms; projections start from the run's seed."""
    torch.manual_seed(int(plan.request["seed"]))
    return [
        Stage(stage.name, stage.steps, [_term(loss, plan) for loss in stage.terms], stage.learning_rates)
        for stage in plan.stages_of("distill")
    ]


def _term(loss: Loss, plan: Plan) -> Term:
    """The term that a line of the objective stands for."""
    names = plan.teacher_names
    if isinstance(loss, HardLabels):
        return HardLabelsTerm(weight=loss.weight)
    if isinstance(loss, SoftLabels):
        return SoftLabelsTerm(names, loss.temperature, loss.temperature_squared, loss.weighting, loss.weight)
    assert isinstance(loss, HiddenMse)
    widths = {teacher.name: teacher.width for teacher in plan.teachers}
    side, share = (loss.projection.side, loss.projection.share) if loss.projection else (None, "per-layer")
    width = plan.student_or_fail.width
    return HiddenMseTerm(plan.layer_maps, width, widths, side, share, loss.weight)  # type: ignore[arg-type]


def _asked_layers(plan: Plan) -> dict[str, frozenset[int]]:
    return {name: frozenset(rows.values()) for name, rows in plan.layer_maps.items()}


def _samples(open_run: OpenRun, split: str) -> Samples:
    """A split as the student and all teachers see it, aligned with the student's tokens."""
    plan, task = open_run.prepared.plan, open_run.prepared.task
    length = plan.recipe.training.max_length
    folders = {STUDENT: Path(plan.student_or_fail.tokenizer_folder)}
    if split == TRAIN and asks_teachers("distill", plan.recipe):
        folders |= {teacher.name: Path(teacher.folder) for teacher in plan.teachers}
    by_tokenizer: dict[str, TokenView] = {}
    views: dict[str, TokenView] = {}
    for name, folder in folders.items():
        view = by_tokenizer.get(str(folder)) or tokenise(task.splits[split], load_tokenizer(folder), length)
        same = next((other for other in views.values() if other.fingerprint == view.fingerprint), view)
        views[name] = by_tokenizer[str(folder)] = same
    alignments = {name: align(views[STUDENT], view) for name, view in views.items() if name != STUDENT}
    return Samples(task.splits[split].labels, views, alignments, leading=STUDENT)


def _say_alignment(train: Samples, events: Events) -> None:
    for name, alignment in train.alignments.items():
        if not alignment.identity:
            matched = 1 - alignment.unmatched
            events.emit(Note(f"{name} splits the text differently: {matched:.2%} of the student's tokens are aligned with it"))


def _evaluate(open_run: OpenRun, teachers: Sequence[Teacher], teacher_logits: Mapping[str, Logits]) -> Evaluation:
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    open_run.events.emit(WorkStarted("scoring on the dev split"))
    device = open_run.trainer.accelerator.device
    answers: list[Answer] = []
    for name, folder, role in students(run):
        answers.append((name, role, *student_answers(folder, task, DEV, plan.recipe.training.max_length, device)))
    answers += [(teacher.name, "teacher", teacher_logits[teacher.name], teacher.parameter_count) for teacher in teachers]
    return compare_on(task, DEV, answers)


def students(run: RunFolder) -> list[tuple[str, Path, Role]]:
    """The trained students that a run holds: name, folder and role."""
    known: list[tuple[str, Path, Role]] = [
        ("student", run.student, "student"),
        ("without teachers", run.baseline, "without-teachers"),
    ]
    return [row for row in known if row[1].is_dir()]


def student_answers(folder: Path, task: Task, split: str, max_length: int, device: torch.device) -> tuple[Logits, int]:
    """Logits [n, C] of a classification checkpoint on a split, and its parameter count."""
    model: Any = load_classifier(folder).to(device).eval()
    learner = StudentLearner(model)
    view = tokenise(task.splits[split], load_tokenizer(folder), max_length)
    samples = Samples(task.splits[split].labels, {STUDENT: view}, {}, leading=STUDENT)
    logits = predict(learner, samples, EVALUATION_BATCH, device)[STUDENT]
    return logits, sum(parameter.numel() for parameter in model.parameters())


def _write_results(run: RunFolder, plan: Plan, evaluation: Evaluation) -> None:
    write_json(run.evaluation, evaluation.model_dump())
    write_text(run.student / "README.md", model_card(plan, evaluation))
