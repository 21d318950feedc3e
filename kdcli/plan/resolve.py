"""From a request to a plan: each check collects what it finds, and everything is reported at once."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from kdcli import __version__
from kdcli.data.task import Task
from kdcli.data.tokens import fingerprint as tokenizer_fingerprint
from kdcli.data.tokens import tokenise
from kdcli.errors import Problems, RequestError, did_you_mean
from kdcli.models import checkpoints
from kdcli.models.checkpoints import SHARED_HEAD, Checkpoint, Reference
from kdcli.models.loading import load_tokenizer, quiet_transformers
from kdcli.plan.blueprint import Blueprint, parameter_count, plan_student
from kdcli.plan.estimate import estimate
from kdcli.plan.hardware import resolve_device, resolve_precision
from kdcli.plan.labels import match_labels
from kdcli.plan.plan import (
    Plan,
    SplitPlan,
    StagePlan,
    StudentPlan,
    TaskPlan,
    TeacherKind,
    TeacherPlan,
)
from kdcli.plan.request import TrainRequest
from kdcli.recipe import catalogue, loading
from kdcli.recipe.document import KeyPath
from kdcli.recipe.layers import LayerMapError, resolve
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.schema import FIRST_TEACHER, SCRATCH, HardLabels, HiddenMse, Recipe

_SAMPLED_ROWS = 256
_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy", "scikit-learn")


def load_recipe(request: TrainRequest) -> LoadedRecipe:
    """The recipe that the request names, with its overrides in place."""
    return loading.load(catalogue.find(request.recipe), request.overrides)


def make_plan(request: TrainRequest, task: Task, references: Sequence[Reference], *, starter: bool, sized: bool = True) -> Plan:
    """Resolve everything, or say everything that is wrong.

    Args:
        request: what was asked for.
        task: the data, read already.
        references: the teachers, in order.
        starter: the starter task is used.
        sized: also estimate time and memory.

    Raises:
        RequestError: with all problems that were found.
    """
    quiet_transformers()
    problems = Problems()
    loaded = load_recipe(request)
    found = _described(references, problems)
    problems.raise_if_any()
    teachers = [_teacher(checkpoint, task, loaded, problems) for checkpoint in found]
    _refuse_unknown_teachers(loaded, [checkpoint.name for checkpoint in found], problems)
    blueprint = None
    if request.student is not None:
        blueprint = plan_student(request.student, found, task, loaded, problems)
    _refuse_too_long(loaded, found, blueprint, problems)
    maps = _layer_maps(found, blueprint.plan if blueprint else None, loaded, problems)
    if blueprint is not None:
        _refuse_unlike_widths(found, blueprint.plan, loaded, problems)
    try:
        device = resolve_device(request.device)
        precision = resolve_precision(loaded.recipe.training.precision, device)
    except RequestError as error:
        problems.extend(error)
    problems.raise_if_any()
    student = blueprint.plan if blueprint else None
    if blueprint is not None:
        own = tokenizer_fingerprint(load_tokenizer(blueprint.tokenizer_folder))
        teachers = [
            teacher.model_copy(update={"same_tokens": tokenizer_fingerprint(load_tokenizer(checkpoint.folder)) == own})
            for teacher, checkpoint in zip(teachers, found, strict=True)
        ]
    stages = _stages(request, loaded, task, teachers)
    baseline = request.command == "distill" and (starter if request.baseline is None else request.baseline)
    folder = blueprint.tokenizer_folder if blueprint else found[0].folder
    return Plan(
        request=request.as_data(),
        recipe=loaded.recipe,
        task=_task_plan(task, starter),
        teachers=teachers,
        student=student,
        layer_maps=maps,
        stages=stages,
        precision=precision,
        device=str(device),
        baseline=baseline,
        estimate=estimate(
            teachers,
            student,
            stages,
            batch_size=loaded.recipe.training.batch_size,
            tokens=_tokens_per_sample(task, folder, loaded.recipe.training.max_length),
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            device=device,
            repeats=2 if baseline else 1,
        )
        if sized
        else None,
        versions=versions(),
        notes=[*task.notes, *_notes(teachers)],
    )


def asks_teachers(command: str, recipe: Recipe) -> bool:
    """Whether the teachers have to be there as trained models: a plain fine-tuning recipe only borrows their layers."""
    return command == "cofinetune" or recipe.needs_teachers() or recipe.student.init.weights == "finetuned"


def versions() -> dict[str, str]:
    """Of kdcli, Python and the packages that results depend on."""
    return {"kdcli": __version__, "python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def _described(references: Sequence[Reference], problems: Problems) -> list[Checkpoint]:
    found = []
    for reference in references:
        try:
            found.append(checkpoints.describe(reference))
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
        parameters=parameter_count(checkpoint.config, classifier=False),
        order=order,
        fingerprint=checkpoint.fingerprint,
    )


def _kind_and_order(
    checkpoint: Checkpoint, task: Task, loaded: LoadedRecipe, problems: Problems
) -> tuple[TeacherKind, list[int] | None]:
    recipe = loaded.recipe
    if recipe.teachers.cofinetune.which == "all":
        return "cofinetune", None
    kind: TeacherKind
    if checkpoint.shared_head is not None:
        kind = "cofinetuned"
        labels = json.loads((checkpoint.shared_head / SHARED_HEAD).read_text(encoding="utf-8"))["labels"]
    elif checkpoint.head_labels is not None:
        kind, labels = "finetuned", list(checkpoint.head_labels)
    else:
        return "cofinetune", None
    labels = recipe.teachers.labels.get(checkpoint.name, labels)
    try:
        return kind, match_labels(_where(checkpoint), labels, task)
    except RequestError as error:
        problems.extend(error)
        return kind, None


def _refuse_unknown_teachers(loaded: LoadedRecipe, names: list[str], problems: Problems) -> None:
    """Names in the recipe that no teacher has."""
    recipe = loaded.recipe
    used: list[tuple[KeyPath, str]] = [(("teachers", "labels", name), name) for name in recipe.teachers.labels]
    if isinstance(recipe.layers, dict):
        used += [(("layers", name), name) for name in recipe.layers]
    source = recipe.student.init.source
    if source not in (FIRST_TEACHER, SCRATCH):
        used.append((("student", "init", "from"), source))
    for path, name in used:
        if name not in names:
            problems.add(
                loaded.document.where(path),
                f"there is no teacher {name!r}",
                expected="one of " + ", ".join(names),
                remedy=did_you_mean(name, names),
            )


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


def _layer_maps(
    teachers: Sequence[Checkpoint], student: StudentPlan | None, loaded: LoadedRecipe, problems: Problems
) -> dict[str, dict[int, int]]:
    if student is None or not any(isinstance(term, HiddenMse) for stage in loaded.recipe.stages for term in stage.objective):
        return {}
    layers = loaded.recipe.layers
    maps = {}
    for teacher in teachers:
        spec = layers.get(teacher.name, "uniform") if isinstance(layers, dict) else layers
        path: KeyPath = ("layers", teacher.name) if isinstance(layers, dict) else ("layers",)
        try:
            maps[teacher.name] = resolve(spec, student.layers, teacher.layers)
        except LayerMapError as error:
            problems.add(
                loaded.document.where(path),
                str(error),
                expected=f"{error.expected}; teacher {teacher.name} is {teacher.reference}",
                found=f"{spec} for a student of {student.layers} layers",
                remedy=error.remedy,
            )
    return maps


def _refuse_unlike_widths(
    teachers: Sequence[Checkpoint], student: StudentPlan, loaded: LoadedRecipe, problems: Problems
) -> None:
    for row, stage in enumerate(loaded.recipe.stages):
        for place, term in enumerate(stage.objective):
            if not isinstance(term, HiddenMse) or term.projection is not None:
                continue
            unlike = [teacher for teacher in teachers if teacher.width != student.width]
            if unlike:
                problems.add(
                    loaded.document.where(("stages", row, "objective", place, "projection")),
                    "the widths differ, so a projection is needed",
                    expected=f"{student.width} on both sides",
                    found=", ".join(f"{teacher.name} {teacher.width}" for teacher in unlike),
                    remedy="projection: {side: teacher}",
                )


def _stages(request: TrainRequest, loaded: LoadedRecipe, task: Task, teachers: Sequence[TeacherPlan]) -> list[StagePlan]:
    recipe = loaded.recipe
    training = recipe.training
    per_epoch = math.ceil(len(task.train) / training.batch_size)
    stages = []
    cofinetune = recipe.teachers.cofinetune
    if asks_teachers(request.command, recipe) and any(teacher.kind == "cofinetune" for teacher in teachers):
        stages.append(
            StagePlan(
                phase="cofinetune",
                name="cofinetune",
                epochs=cofinetune.epochs,
                steps=max(1, math.ceil(cofinetune.epochs * per_epoch)),
                learning_rates={"body": cofinetune.learning_rate, "head": cofinetune.head_learning_rate},
                terms=[HardLabels(loss="hard-labels")],
            )
        )
    rates: dict[Literal["body", "head", "projection"], float] = {
        "body": training.learning_rate,
        "head": training.head_learning_rate,
        "projection": training.projection_learning_rate or training.learning_rate,
    }
    if request.command == "distill":
        stages += [
            StagePlan(
                phase="distill",
                name=stage.name,
                epochs=stage.epochs,
                steps=max(1, math.ceil(stage.epochs * per_epoch)),
                learning_rates=rates,
                terms=stage.objective,
            )
            for stage in recipe.stages
        ]
    return stages


def _task_plan(task: Task, starter: bool) -> TaskPlan:
    splits: Mapping[str, SplitPlan] = {
        name: SplitPlan(rows=len(split), source=split.source, fingerprint=split.fingerprint)
        for name, split in task.splits.items()
    }
    return TaskPlan(
        name=task.name,
        labels=list(task.labels),
        metric=task.metric,
        pairs=task.has_pairs,
        starter=starter,
        splits=dict(splits),
        notes=list(task.notes),
    )


def _notes(teachers: Sequence[TeacherPlan]) -> list[str]:
    return [
        f"{teacher.name} has no trained head: it is co-finetuned first" for teacher in teachers if teacher.kind == "cofinetune"
    ]


def _tokens_per_sample(task: Task, folder: Path, max_length: int) -> float:
    rows = np.random.default_rng(0).permutation(len(task.train))[:_SAMPLED_ROWS]
    return float(tokenise(task.train.select(rows), load_tokenizer(folder), max_length).lengths.mean())
