"""``kdcli distill``: teachers → student → proof.

Co-finetune the teachers that need it, check that they know the task, train the assistants on the way and the student through
the recipe's stages, train the same student without teachers where that was asked for, and score all of them on the dev split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcli.atomic_files import whole_folder
from kdcli.data.batching import Samples
from kdcli.data.splits import DEV
from kdcli.data.task import Split
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.inference import EVALUATION_BATCH
from kdcli.engine.stages import Asking, Phase, Stage
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import ModelOutputs, compare
from kdcli.evaluation.document import Evaluation
from kdcli.evaluation.gates import Gate, with_gates
from kdcli.jobs.evaluation_files import write_proof
from kdcli.jobs.model_outputs import Questions
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.run_opening import OpenRun, opened
from kdcli.jobs.teacher_training import (
    dev_scores,
    load_teachers,
    out_of_fold_logits,
    refuse_outputs_not_finite,
    refuse_weak_teachers,
    teacher_logits,
    train_teachers,
    trained_folder,
    weights_folder,
)
from kdcli.jobs.tokenized_splits import samples_of, tokenizers_of
from kdcli.jobs.training_shortcuts import CACHE_LIMIT, teaching, train_quickly
from kdcli.jobs.training_stages import make_stages
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.projection import Projections
from kdcli.models.configuration import read_configuration
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
from kdcli.models.weight_loading import load_tokenizer
from kdcli.plan.hardware import teachers_dtype
from kdcli.plan.plan import DISTILL, HopPlan, Plan, StagePlan, StudentPlan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers
from kdcli.recipe.losses.hard_labels import HardLabels
from kdcli.recipe.term_plan import TermPlan

BASELINE = "baseline"
Logits = NDArray[np.float32]


def distill(
    request: TrainRequest | None,
    events: Events,
    out: Path | None = None,
    resume: bool = False,
    cache_limit: int = CACHE_LIMIT,
    gates: Sequence[Gate] = (),
    report: bool = False,
) -> tuple[RunFolder, Evaluation]:
    """Make a student and the proof of its worth; returns the run folder and the scores on dev.

    Args:
        request: what was asked for; None with ``resume`` takes everything from the run.
        events: who is told.
        out: the run folder, or None for a new name (with ``resume``: for the latest run).
        resume: go on with a run that is there.
        cache_limit: what teachers say is kept in so many bytes, beside what earlier runs have kept.
        gates: limits that the student is held against in the end.
        report: write report and tables too.

    Raises:
        RequestError: the request is wrong; nothing was written.
        GateError: a teacher or an assistant is at chance.
        InterruptedRunError: a signal asked to stop; ``resume`` goes on.
    """
    with opened(request, out, resume, events, cache_limit, lambda plan: _refuse_gates_without_teacher(gates, plan)) as open_run:
        plan, run = open_run.prepared.plan, open_run.folder
        teachers: list[Teacher] = []
        if asks_teachers(DISTILL, plan.recipe):
            train_teachers(open_run)
            teachers = load_teachers(plan, run, plan.given_teachers)
        logits = _teachers_on_dev(open_run, teachers)
        allow_weak = bool(plan.request["allow_weak_teachers"])
        refuse_weak_teachers(logits, open_run.prepared.task, allow_weak, open_run.events)
        unseen = out_of_fold_logits(open_run) if teachers else {}
        for hop in plan.hops:
            _train_hop(open_run, hop, teachers, logits, unseen)
            if hop.name != DISTILL:
                assistant = load_teachers(plan, run, [plan.teacher(hop.name)])
                said = _teachers_on_dev(open_run, assistant)
                refuse_weak_teachers(said, open_run.prepared.task, allow_weak, open_run.events, assistants=True)
                logits |= said
                teachers += assistant
        _train_baseline(open_run)
        task, device = open_run.prepared.task, open_run.trainer.accelerator.device
        evaluation, entries = _evaluate(open_run, teachers, logits, gates)
        for note in evaluation.notes:
            open_run.events.emit(Note(note))
        open_run.once(lambda: write_proof(run, plan, task, evaluation, entries, device, events, report))
        return run, evaluation


def _refuse_gates_without_teacher(gates: Sequence[Gate], plan: Plan) -> None:
    for gate in gates:
        if gate.needs_teacher and not asks_teachers(DISTILL, plan.recipe):
            raise RequestError(Problem(f"--{gate.name}", "needs a teacher to compare with", found=f"recipe {plan.recipe.name}"))


def _teachers_on_dev(open_run: OpenRun, teachers: Sequence[Teacher]) -> dict[str, Logits]:
    plan, task = open_run.prepared.plan, open_run.prepared.task
    if teachers:
        open_run.events.emit(WorkStarted("asking the teachers about the dev split"))
    device, length = open_run.trainer.accelerator.device, plan.recipe.training.max_length
    found = {}
    for teacher in teachers:
        folder = trained_folder(plan.teacher(teacher.name), open_run.folder)
        found[teacher.name] = teacher_logits(teacher, folder, task.dev, length, device, EVALUATION_BATCH)
        refuse_outputs_not_finite(f"teacher {teacher.name}", found[teacher.name], task.dev.source)
    return found


def _train_hop(
    open_run: OpenRun,
    hop: HopPlan,
    teachers: Sequence[Teacher],
    dev_logits: Mapping[str, Logits],
    unseen: Mapping[str, Logits],
) -> None:
    """Train one student, the last one or an assistant, if it is not there yet."""
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    folder = _hop_folder(run, hop)
    if folder.is_dir():
        return
    assert task.dev.targets is not None
    ranking = {name: task.kind.scores(values, task.dev.targets)[task.metric] for name, values in dev_logits.items()}
    open_run.events.emit(WorkStarted("tokenising and aligning" if hop.teachers else "tokenising"))
    asked = [teacher for teacher in teachers if teacher.name in hop.teachers]
    train = _samples(plan, task.training_rows, hop.student, [teacher.name for teacher in asked], unseen)
    _say_alignment(train, open_run.events)
    device = open_run.trainer.accelerator.device
    stages, projections = make_stages(plan, hop, ranking)
    title = (
        f"distilling {hop.name} ({hop.student.reference})"
        if hop.name != DISTILL
        else ("distilling the student" if plan.distills else "training the student on hard labels alone")
    )
    built = _build(plan, run, hop.student, hop.student.weights)
    ensemble = Ensemble(asked, teachers_dtype(plan.precision)).to(device) if asked else None
    with teaching(open_run, ensemble, train, stages) as asking:
        _train(open_run, hop.name, title, built, hop.student, stages, train, folder, asking, projections)


def _train_baseline(open_run: OpenRun) -> None:
    """Train the same student without teachers, where that was asked for and is not there yet."""
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    student = plan.alone
    if student is None or run.baseline.is_dir():
        return
    open_run.events.emit(WorkStarted("tokenising"))
    alone = [Stage(_baseline_stage(plan), [HardLabelsTerm(kind=task.kind)])]
    built = _build(plan, run, student, "pretrained")
    train = _samples(plan, task.train, student, [], {})
    _train(open_run, BASELINE, "training the same student without teachers", built, student, alone, train, run.baseline)


def _baseline_stage(plan: Plan) -> StagePlan:
    """One stage as long as all those of the student, on hard labels alone."""
    stages, training = plan.hops[-1].stages, plan.recipe.training
    return StagePlan(
        phase=BASELINE,
        name=BASELINE,
        epochs=sum(stage.epochs for stage in stages),
        steps=sum(stage.steps for stage in stages),
        learning_rates=stages[-1].learning_rates,
        warmup=training.warmup,
        schedule=training.schedule,
        terms=[TermPlan(loss=HardLabels(loss="hard-labels"))],
    )


def _hop_folder(run: RunFolder, hop: HopPlan) -> Path:
    return run.student if hop.name == DISTILL else run.assistant(hop.name)


def _build(plan: Plan, run: RunFolder, student: StudentPlan, weights: str) -> BuiltStudent:
    """A student before training, from the same seed whichever way it is trained."""
    folder, seed = Path(student.tokenizer_folder), int(plan.request["seed"])
    described, idle_pooler = folder, False
    if student.cut_from is not None:
        teacher = plan.teacher(student.cut_from)
        trained = weights == "finetuned" or teacher.kind == "assistant"
        idle_pooler = teacher.kind == "cofinetuned" or (trained and teacher.kind == "cofinetune")
        folder = trained_folder(teacher, run) if trained else weights_folder(teacher)
        described = folder if teacher.kind == "assistant" else described
    source_config = read_configuration(described).config
    size = Size(student.layers, student.width, student.heads)
    config = student_config(source_config, size, student.copied_layers, plan.task.labels, plan.task.known().problem_type)
    source = folder if student.copied_layers else None
    return build_student(config, source, student.copied_layers, seed, plan.kept_head(student), idle_pooler=idle_pooler)


def _train(
    open_run: OpenRun,
    name: str,
    title: str,
    built: BuiltStudent,
    student: StudentPlan,
    stages: Sequence[Stage],
    train: Samples,
    folder: Path,
    ensemble: Asking | None = None,
    projections: Projections | None = None,
) -> None:
    plan, task = open_run.prepared.plan, open_run.prepared.task
    dev = _samples(plan, task.dev, student, [], {})
    phase = Phase(
        name=name,
        title=title,
        learner=StudentLearner(built.model, built.fresh),
        stages=stages,
        train=train,
        dev=dev,
        ensemble=ensemble,
        score=dev_scores(task),
        metric=task.metric,
        seed=int(plan.request["seed"]),
        projections=projections or Projections(),
    )
    train_quickly(open_run, phase, {STUDENT: built.model})
    tokenizer = load_tokenizer(Path(student.tokenizer_folder))

    def save() -> None:
        with whole_folder(folder, sealed=True) as partial:
            save_student(built.model, tokenizer, partial, plan.recipe.training.max_length)

    open_run.once(save)


def _samples(plan: Plan, split: Split, student: StudentPlan, teachers: Sequence[str], unseen: Mapping[str, Logits]) -> Samples:
    """A split as a student and its teachers see it, aligned with the student's tokens."""
    folders = {STUDENT: Path(student.tokenizer_folder)} | {name: Path(plan.teacher(name).folder) for name in teachers}
    known = {name: logits for name, logits in unseen.items() if name in teachers}
    return samples_of(
        split, tokenizers_of(folders), plan.recipe.training.max_length, aligned=True, out_of_fold=known
    )  # fmt: skip


def _say_alignment(train: Samples, events: Events) -> None:
    for name, alignment in train.alignments.items():
        if not alignment.identity:
            matched = 1 - alignment.unmatched
            events.emit(Note(f"{name} splits the text differently: {matched:.2%} of the student's tokens are aligned with it"))


def _evaluate(
    open_run: OpenRun, teachers: Sequence[Teacher], teacher_logits: Mapping[str, Logits], gates: Sequence[Gate]
) -> tuple[Evaluation, list[ModelOutputs]]:
    """All models of the run on the dev split; what the teachers have said of it is known already."""
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    questions = Questions(task, DEV, open_run.trainer.accelerator.device, open_run.events)
    questions.know(run, plan, teacher_logits, {teacher.name: teacher.parameter_count for teacher in teachers})
    entries = questions.run_alone(run, plan)
    return with_gates(compare(task, DEV, entries, plan.notes_on_baseline), gates), entries
