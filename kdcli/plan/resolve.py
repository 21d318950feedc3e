"""From a request to a plan: each check collects what it finds, and everything is reported at once."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdcli import __version__
from kdcli.data.task import Task
from kdcli.data.tokens import fingerprint as tokenizer_fingerprint
from kdcli.data.tokens import tokenise
from kdcli.errors import Problem, Problems, RequestError
from kdcli.models import checkpoints
from kdcli.models.checkpoints import Checkpoint, Reference
from kdcli.models.head import head_parameters, saved_head_parameters
from kdcli.models.head_file import read_shared_head
from kdcli.models.weight_loading import load_tokenizer, quiet_transformers
from kdcli.plan.blueprint import Blueprint, plan_student
from kdcli.plan.chain import Hop, plan_hops
from kdcli.plan.derived_values import RATE_FROM_SCRATCH, Circumstances, derived
from kdcli.plan.estimate import estimate
from kdcli.plan.model_size import parameter_count
from kdcli.plan.plan import (
    COFINETUNE,
    ColumnsPlan,
    DerivedPlan,
    HopPlan,
    Plan,
    SplitPlan,
    StagePlan,
    StudentPlan,
    TaskPlan,
    TeacherKind,
    TeacherPlan,
)
from kdcli.plan.request import Effort, TrainRequest
from kdcli.plan.settings import Asked
from kdcli.plan.stages import steps
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.losses.hard_labels import HardLabels
from kdcli.recipe.model_shapes import refuse_unknown
from kdcli.recipe.schema import Recipe, settled
from kdcli.recipe.term_plan import TermPlan
from kdcli.tasks.classification import Classification
from kdcli.tasks.kinds import kind_of_head

_SAMPLED_ROWS = 256
_CHECKED_TASK = Classification.of_names(("0", "1"))
_CHECKED_ROWS = 1000
_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "scikit-learn")


def make_plan(asked: Asked, task: Task, references: Sequence[Reference], *, starter: bool, sized: bool = True) -> Plan:
    """Resolve everything, or say everything that is wrong.

    Args:
        asked: what was asked for, of which recipe, on which machine.
        task: the data, read already.
        references: the teachers, in order.
        starter: the starter task is used.
        sized: also estimate time and memory.

    Raises:
        RequestError: with all problems that were found.
    """
    quiet_transformers()
    problems = Problems()
    request = asked.request
    found = _described(references, problems)
    problems.raise_if_any()
    loaded, told = _derived(request, asked.loaded, found, task)
    tokenizer = _each_once(load_tokenizer)
    for checkpoint in found:
        try:
            tokenizer(checkpoint.folder)
        except RequestError as error:
            problems.extend(error)
    teachers = _with_new_head([_teacher(checkpoint, task, loaded, problems) for checkpoint in found], task, loaded)
    _refuse_unknown_names(loaded, found, problems)
    hops: list[Hop] = []
    if request.command == "distill":
        hops = plan_hops(
            asked_student(request, loaded),
            found,
            task.kind,
            loaded,
            len(task.training_rows),
            problems,
            flagged=request.student is not None,
        )
    _refuse_too_long(loaded, found, hops[-1].blueprint if hops else None, problems)
    _refuse_missing_outputs(request, loaded, task, teachers, problems)
    problems.raise_if_any()
    teachers += [_assistant(hop) for hop in hops[:-1]]
    if hops:
        teachers = _with_same_tokens(teachers, hops[-1].blueprint, tokenizer)
    cofinetune = _cofinetune_stages(request, loaded, task, teachers)
    wanted = starter and loaded.recipe.needs_teachers() if request.baseline is None else request.baseline
    baseline = request.command == "distill" and wanted
    stages = [*cofinetune, *(stage for hop in hops for stage in hop.plan.stages)]
    training = loaded.recipe.training
    return Plan(
        request=request.as_data(),
        recipe=loaded.recipe,
        task=_task_plan(task, starter),
        teachers=teachers,
        cofinetune=cofinetune,
        hops=[hop.plan for hop in hops],
        alone=_alone(request, loaded, found, task) if baseline else None,
        precision=asked.precision,
        device=str(asked.device),
        baseline=baseline,
        estimate=estimate(
            teachers,
            {hop.plan.name: hop.plan.student for hop in hops},
            stages,
            batch_size=settled(training.batch_size),
            rows=len(task.training_rows),
            tokens=_tokens_per_sample(
                task, tokenizer(hops[-1].blueprint.tokenizer_folder if hops else found[0].folder), training.max_length
            ),
            dtype=torch.bfloat16 if asked.precision == "bf16" else torch.float32,
            device=asked.device,
            repeats=2 if baseline else 1,
            rounds=1 + (loaded.recipe.teachers.out_of_fold or 0),
        )
        if sized
        else None,
        versions=versions(),
        notes=[*task.notes, *_notes(teachers, loaded, hops), *_note_on_effort(request, loaded, told)],
        derived=told,
    )


def asked_student(request: TrainRequest, loaded: LoadedRecipe) -> str:
    """The student's size or checkpoint: the user's, or the recipe's.

    Raises:
        RequestError: neither says it.
    """
    student = request.student or loaded.recipe.student.size
    if student is None:
        raise RequestError(Problem("--student", "is missing", remedy="kdcli distill --teachers bert,roberta --student 4L"))
    return student


def check_recipe(
    loaded: LoadedRecipe, references: Sequence[Reference], student: str | None
) -> tuple[list[HopPlan], dict[str, int]]:
    """The recipe held against checkpoints by their configurations alone: no data, no weights.

    Returns:
        The trainings as they would be, as for 1,000 rows of two classes, and the depth of everybody who teaches.

    Raises:
        RequestError: with everything that is wrong.
    """
    quiet_transformers()
    problems = Problems()
    found = _described(references, problems, weights=False)
    problems.raise_if_any()
    wanted = student or loaded.recipe.student.size
    if wanted is None:
        raise RequestError(Problem("--student", "is missing", "a size such as 4L, to hold the layer maps against"))
    _refuse_unknown_names(loaded, found, problems)
    last = plan_student(wanted, "", found, _CHECKED_TASK, loaded, Problems(), weights=False)
    loaded, _ = derived(loaded, _circumstances(found, last, loaded.recipe, _CHECKED_ROWS, _CHECKED_ROWS, "normal"))
    hops = plan_hops(wanted, found, _CHECKED_TASK, loaded, _CHECKED_ROWS, problems, flagged=student is not None, weights=False)
    _refuse_too_long(loaded, found, hops[-1].blueprint if hops else None, problems)
    problems.raise_if_any()
    depths = {teacher.name: teacher.layers for hop in hops for teacher in hop.teachers}
    return [hop.plan for hop in hops], depths


def _derived(
    request: TrainRequest, loaded: LoadedRecipe, found: Sequence[Checkpoint], task: Task
) -> tuple[LoadedRecipe, list[DerivedPlan]]:
    """The recipe with a number wherever it leaves one open, and what those numbers are."""
    student = None
    if request.command == "distill":
        student = plan_student(asked_student(request, loaded), "", found, task.kind, loaded, Problems(), weights=False)
    about = _circumstances(found, student, loaded.recipe, len(task.training_rows), len(task.train), request.effort)
    loaded, told = derived(loaded, about)
    trained = request.command == "cofinetune" or any(_is_bare(checkpoint, loaded.recipe) for checkpoint in found)
    left_out = [] if trained else ["teachers."]
    left_out += ["stages.", "training.learning_rate"] if request.command == "cofinetune" else []
    return loaded, [each for each in told if not each.key.startswith(tuple(left_out))]


def _circumstances(
    found: Sequence[Checkpoint], student: Blueprint | None, recipe: Recipe, rows: int, labelled: int, effort: Effort
) -> Circumstances:
    widths = {checkpoint.name: checkpoint.width for checkpoint in found if _is_bare(checkpoint, recipe)}
    if student is None:
        return Circumstances(rows, labelled, width=found[0].width, teacher_widths=widths, effort=effort)
    plan = student.plan
    return Circumstances(rows, labelled, plan.width, plan.layers, plan.kind == "scratch", widths, effort)


def _is_bare(checkpoint: Checkpoint, recipe: Recipe) -> bool:
    """Whether a teacher is co-finetuned in this run."""
    return recipe.teachers.cofinetune.which == "all" or (checkpoint.shared_head is None and checkpoint.head_labels is None)


def asks_teachers(command: str, recipe: Recipe) -> bool:
    """Whether the teachers have to be there as trained models: a plain fine-tuning recipe only borrows their layers."""
    return command == "cofinetune" or recipe.needs_teachers() or recipe.student.init.weights == "finetuned"


def versions() -> dict[str, str]:
    """Of kdcli, Python and the packages that results depend on."""
    return {"kdcli": __version__, "python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def _described(references: Sequence[Reference], problems: Problems, *, weights: bool = True) -> list[Checkpoint]:
    found = []
    for reference in references:
        try:
            found.append(checkpoints.describe(reference, weights=weights))
        except RequestError as error:
            problems.extend(error)
    return found


def _where(checkpoint: Checkpoint) -> str:
    return f"--teachers {checkpoint.name}={checkpoint.reference}"


def _teacher(checkpoint: Checkpoint, task: Task, loaded: LoadedRecipe, problems: Problems) -> TeacherPlan:
    kind, order = _kind_and_order(checkpoint, task, loaded, problems)
    return TeacherPlan(
        name=checkpoint.name,
        kind=kind,
        reference=checkpoint.reference,
        folder=str(checkpoint.folder.resolve()),
        model_type=checkpoint.model_type,
        layers=checkpoint.layers,
        width=checkpoint.width,
        heads=checkpoint.heads,
        vocabulary=checkpoint.vocabulary,
        parameters=parameter_count(checkpoint.config, classifier=kind == "finetuned") + _saved_head(checkpoint, kind),
        order=order,
        fingerprint=checkpoint.fingerprint,
    )


def _saved_head(checkpoint: Checkpoint, kind: TeacherKind) -> int:
    """Parameters of the shared head on disk that a co-finetuned teacher's outputs go through."""
    if kind != "cofinetuned" or checkpoint.shared_head is None:
        return 0
    return saved_head_parameters(checkpoint.shared_head)[checkpoint.folder.name]


def _with_new_head(teachers: list[TeacherPlan], task: Task, loaded: LoadedRecipe) -> list[TeacherPlan]:
    """The teachers, those that are co-finetuned here with the parameters of the head that they will have."""
    widths = {teacher.name: teacher.width for teacher in teachers if teacher.kind == "cofinetune"}
    if not widths:
        return teachers
    heads = head_parameters(widths, len(task.kind.output_names), loaded.recipe.teachers.cofinetune.pooling)
    return [teacher.model_copy(update={"parameters": teacher.parameters + heads.get(teacher.name, 0)}) for teacher in teachers]


def _kind_and_order(
    checkpoint: Checkpoint, task: Task, loaded: LoadedRecipe, problems: Problems
) -> tuple[TeacherKind, list[int] | None]:
    recipe = loaded.recipe
    if _is_bare(checkpoint, recipe):
        return "cofinetune", None
    kind: TeacherKind
    if checkpoint.shared_head is not None:
        about = read_shared_head(checkpoint.shared_head)
        kind, outputs, own = "cofinetuned", list(about.labels), about.kind
    else:
        of_head = kind_of_head(checkpoint.problem_type)
        kind, outputs = "finetuned", list(checkpoint.head_labels or ())
        own = checkpoint.problem_type if of_head is None else of_head.name
    outputs = recipe.teachers.labels.get(checkpoint.name, outputs)
    try:
        if kind == "finetuned":
            checkpoint.check_head("--set teachers.cofinetune.which=all drops its head and co-finetunes it")
        return kind, task.kind.order_of(_where(checkpoint), outputs, own, checkpoint.name)
    except RequestError as error:
        problems.extend(error)
        return kind, None


def _refuse_missing_outputs(
    request: TrainRequest, loaded: LoadedRecipe, task: Task, teachers: Sequence[TeacherPlan], problems: Problems
) -> None:
    """Weights by error need gold labels, and out-of-fold answers need teachers that are trained here."""
    recipe = loaded.recipe
    if request.command != "distill":
        return
    for row, stage in enumerate(recipe.stages):
        for place, term in enumerate(stage.objective):
            asks = not term.is_off and task.unlabelled
            for key in term.by_error_without_labels() if asks else ():
                problems.add(
                    loaded.document.where(("stages", row, "objective", place, key)),
                    f"needs gold labels, which {task.unlabelled} of the training rows do not have",
                    remedy=f"--set stages.{row}.objective.{place}.unlabelled_{key}=agreement",
                )
    if recipe.teachers.out_of_fold is None:
        return
    where = loaded.document.where(("teachers", "out_of_fold"))
    ready = [teacher.name for teacher in teachers if teacher.kind != "cofinetune"]
    if ready:
        problems.add(
            where,
            "needs teachers that are co-finetuned in this run",
            found=", ".join(ready) + " trained already",
            remedy="--set teachers.cofinetune.which=all",
        )
    if not recipe.weights_by_error():
        problems.add(
            where,
            "no term weights its teachers by their errors, so that nothing would use them",
            remedy="weighting: inverse-error in a soft-labels term",
        )


def _assistant(hop: Hop) -> TeacherPlan:
    """A student of this run as the teacher of the next."""
    student = hop.plan.student
    return TeacherPlan(
        name=hop.plan.name,
        kind="assistant",
        reference=student.reference,
        folder=student.tokenizer_folder,
        model_type=student.model_type,
        layers=student.layers,
        width=student.width,
        heads=student.heads,
        vocabulary=student.vocabulary,
        parameters=student.parameters,
        order=None,
        fingerprint="",
    )


def _alone(request: TrainRequest, loaded: LoadedRecipe, teachers: Sequence[Checkpoint], task: Task) -> StudentPlan:
    """The student as it would be without any assistant on the way."""
    blueprint = plan_student(asked_student(request, loaded), "--student", teachers, task.kind, loaded, Problems())
    assert blueprint is not None
    return blueprint.plan


def _each_once(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """``load``, which gives back what it gave before for a folder that it is asked for again."""
    loaded: dict[Path, Any] = {}

    def load_once(folder: Path) -> Any:
        key = folder.resolve()
        if key not in loaded:
            loaded[key] = load(folder)
        return loaded[key]

    return load_once


def _with_same_tokens(
    teachers: Sequence[TeacherPlan], student: Blueprint, tokenizer: Callable[[Path], Any]
) -> list[TeacherPlan]:
    """The teachers, with a note of whose tokenizer is the student's."""
    own = tokenizer_fingerprint(tokenizer(student.tokenizer_folder))
    return [
        teacher.model_copy(update={"same_tokens": tokenizer_fingerprint(tokenizer(Path(teacher.folder))) == own})
        for teacher in teachers
    ]


def _refuse_too_long(
    loaded: LoadedRecipe, teachers: Sequence[Checkpoint], student: Blueprint | None, problems: Problems
) -> None:
    asked = loaded.recipe.training.max_length
    limits = {checkpoint.name: checkpoint.max_length for checkpoint in teachers}
    if student is not None:
        limits["the student"] = student.max_length
    for name, limit in limits.items():
        if asked > limit:
            problems.add(
                loaded.document.where(("training", "max_length")),
                f"is longer than {name} can take",
                expected=f"at most {limit}",
                found=str(asked),
            )


def _refuse_unknown_names(loaded: LoadedRecipe, teachers: Sequence[Checkpoint], problems: Problems) -> None:
    """Note what the recipe says about teachers that are not there."""
    about = loaded.recipe.teachers
    names = [checkpoint.name for checkpoint in teachers]
    for path, given in ((("labels",), about.labels), (("cofinetune", "learning_rates"), about.cofinetune.learning_rates)):
        for name in given:
            refuse_unknown(name, ("teachers", *path, name), names, loaded.document, problems)


def _cofinetune_stages(
    request: TrainRequest, loaded: LoadedRecipe, task: Task, teachers: Sequence[TeacherPlan]
) -> list[StagePlan]:
    recipe, cofinetune = loaded.recipe, loaded.recipe.teachers.cofinetune
    if not asks_teachers(request.command, recipe) or all(teacher.kind != "cofinetune" for teacher in teachers):
        return []
    return [
        StagePlan(
            phase=COFINETUNE,
            name=COFINETUNE,
            epochs=settled(cofinetune.epochs),
            steps=steps(settled(cofinetune.epochs), len(task.train), recipe.training),
            learning_rates={"body": settled(cofinetune.learning_rate), "head": cofinetune.head_learning_rate},
            teacher_rates=dict(cofinetune.learning_rates),
            warmup=recipe.training.warmup,
            schedule=recipe.training.schedule,
            terms=[TermPlan(loss=HardLabels(loss="hard-labels"))],
        )
    ]


def _task_plan(task: Task, starter: bool) -> TaskPlan:
    splits: Mapping[str, SplitPlan] = {
        name: SplitPlan(rows=len(split), source=split.source, fingerprint=split.fingerprint)
        for name, split in task.splits.items()
    }
    return TaskPlan(
        name=task.name,
        kind=task.kind.name,
        labels=list(task.kind.output_names),
        metric=task.metric,
        pairs=task.has_pairs,
        starter=starter,
        splits=dict(splits),
        notes=list(task.notes),
        columns=None
        if task.columns is None
        else ColumnsPlan(
            text=task.columns.text,
            pair=task.columns.pair,
            label=task.columns.label,
            given=list(task.columns.given),
            left_out=list(task.columns.left_out),
        ),
    )


def _notes(teachers: Sequence[TeacherPlan], loaded: LoadedRecipe, hops: Sequence[Hop]) -> list[str]:
    if hops and not loaded.recipe.needs_teachers():
        notes = [f"recipe {loaded.recipe.name} asks no teacher: the student is trained on hard labels alone"]
    else:
        bare = (teacher.name for teacher in teachers if teacher.kind == "cofinetune")
        notes = [f"{name} has no trained head: it is co-finetuned first" for name in bare]
    init = loaded.recipe.student.init
    source = next((teacher for teacher in teachers if hops and teacher.name == hops[-1].plan.student.source), None)
    if source is not None and source.kind in ("finetuned", "cofinetuned") and init.weights == "pretrained":
        notes.append(
            f"{source.name} was given fine-tuned and has no other weights: the student begins with those, and so does one "
            "without teachers"
        )
    student = hops[-1].plan.student if hops else None
    if student is not None and student.own_classes and not student.head_order:
        told = ", ".join(student.own_classes[:5]) + (", …" if len(student.own_classes) > 5 else "")
        notes.append(f"{student.reference} has a head for other classes ({told}): the student gets a fresh one")
    rate = settled(loaded.recipe.training.learning_rate)
    if hops and hops[-1].plan.student.kind == "scratch" and rate < RATE_FROM_SCRATCH:
        notes.append(
            f"the student starts from random weights, for which a learning rate of {rate:g} is low: "
            f"--learning-rate {RATE_FROM_SCRATCH:g} or more learns faster"
        )
    terms = [term.loss for hop in hops for stage in hop.plan.stages for term in stage.terms]
    pooling = loaded.recipe.teachers.cofinetune.pooling
    if (
        pooling != "cls"
        and any(teacher.kind == "cofinetune" for teacher in teachers)
        and any(term.looks_at_first_token for term in terms)
    ):
        notes.append(
            f"losses on [CLS] learn from a state that the teachers, co-finetuned with {pooling} pooling, hardly use: "
            "--set teachers.cofinetune.pooling=cls lets them answer through it"
        )
    of_terms = (note for term in terms for note in term.notes(loaded.recipe.training.accumulation))
    return [*notes, *dict.fromkeys(of_terms)]


def _note_on_effort(request: TrainRequest, loaded: LoadedRecipe, told: Sequence[DerivedPlan]) -> list[str]:
    """What ``--effort`` does not change."""
    if request.effort == "normal" or any(each.key.startswith("stages.") for each in told) or request.command != "distill":
        return []
    return [f"recipe {loaded.recipe.name} says how many epochs the student has: --effort {request.effort} does not change that"]


def _tokens_per_sample(task: Task, tokenizer: Any, max_length: int) -> float:
    rows = np.random.default_rng(0).permutation(len(task.train))[:_SAMPLED_ROWS]
    return float(tokenise(task.train.select(rows), tokenizer, max_length).lengths.mean())
