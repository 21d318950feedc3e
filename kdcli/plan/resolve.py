"""From a request to a plan: each check collects what it finds, and everything is reported at once."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kdcli import __version__
from kdcli.data.task import Task
from kdcli.data.tokens import fingerprint as tokenizer_fingerprint
from kdcli.data.tokens import tokenise
from kdcli.errors import Problem, Problems, RequestError, did_you_mean
from kdcli.models import checkpoints
from kdcli.models.checkpoints import SHARED_HEAD, Checkpoint, Reference
from kdcli.models.loading import load_tokenizer, quiet_transformers
from kdcli.models.student import Size, parse_size, student_config
from kdcli.plan.estimate import estimate
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
from kdcli.recipe.layers import LayerMapError, named_map, resolve
from kdcli.recipe.loading import KeyPath, LoadedRecipe
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
        blueprint = _student(request.student, found, task, loaded, problems)
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


def resolve_device(name: str) -> torch.device:
    """``auto`` takes the GPU where there is one.

    Raises:
        RequestError: a GPU was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError(Problem("--device cuda", "no CUDA device is available", remedy="--device auto"))
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_precision(name: str, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """``auto`` takes bf16 where the machine computes it in hardware.

    Raises:
        RequestError: fp16 was asked for without a GPU.
    """
    if name == "fp16" and device.type != "cuda":
        raise RequestError(Problem("--precision fp16", "needs a GPU", remedy="--precision auto"))
    if name in ("fp32", "bf16", "fp16"):
        return name  # type: ignore[return-value]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if has_bf16_instructions() else "fp32"


def has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX)."""
    cpu: Any = torch.cpu
    return bool(
        getattr(cpu, "_is_avx512_bf16_supported", lambda: False)() or getattr(cpu, "_is_amx_tile_supported", lambda: False)()
    )


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
        parameters=_parameter_count(checkpoint.config, classifier=False),
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


@dataclass(frozen=True)
class _Blueprint:
    plan: StudentPlan
    tokenizer_folder: Path
    max_length: int


def _student(
    text: str, teachers: Sequence[Checkpoint], task: Task, loaded: LoadedRecipe, problems: Problems
) -> _Blueprint | None:
    try:
        size = parse_size(text)
        if size is None:
            return _student_from_checkpoint(text, task)
        return _student_from_teacher(text, size, teachers, task, loaded)
    except RequestError as error:
        problems.extend(error)
        return None


def _student_from_checkpoint(text: str, task: Task) -> _Blueprint:
    try:
        found = checkpoints.describe(Reference("student", checkpoints.ALIASES.get(text, text), "--student"))
    except RequestError as error:
        if "/" not in text and text not in checkpoints.ALIASES:
            raise RequestError(
                Problem(f"--student {text}", "is neither a size nor a checkpoint", "4L, 4L-312H, 4L-312H-12A, or a folder")
            ) from error
        raise
    size = Size(found.layers, found.width, found.heads)
    rows = list(range(1, found.layers + 1))
    return _blueprint(text, "checkpoint", found, size, rows, "pretrained", task)


def _student_from_teacher(
    text: str, size: Size, teachers: Sequence[Checkpoint], task: Task, loaded: LoadedRecipe
) -> _Blueprint | None:
    init = loaded.recipe.student.init
    by_name = {checkpoint.name: checkpoint for checkpoint in teachers}
    source = by_name.get(init.source, teachers[0])
    if size.heads is not None and (size.width or source.width) % size.heads:
        raise RequestError(
            Problem(f"--student {text}", f"{size.heads} heads do not divide the width {size.width or source.width}")
        )
    resized = size.width not in (None, source.width) or size.heads not in (None, source.heads)
    if init.source == SCRATCH or resized:
        return _blueprint(text, SCRATCH, source, size, [], init.weights, task)
    rows = _copied_layers(size.layers, source, loaded, text)
    return _blueprint(text, source.name, source, size, rows, init.weights, task)


def _copied_layers(count: int, source: Checkpoint, loaded: LoadedRecipe, text: str) -> list[int]:
    layers = loaded.recipe.student.init.layers
    path: KeyPath = ("student", "init", "layers")
    if isinstance(layers, list):
        if len(layers) != count or max(layers) > source.layers:
            raise RequestError(
                Problem(
                    loaded.document.where(path),
                    "does not fit the student",
                    f"{count} layers out of 1..{source.layers} ({source.reference})",
                    str(layers),
                )
            )
        return layers
    if count > source.layers:
        raise RequestError(
            Problem(
                f"--student {text}",
                f"is deeper than the teacher that it is cut from ({source.name} has {source.layers} layers)",
                f"at most {source.layers} layers",
                remedy=f"--student {max(1, source.layers // 2)}L, or --set student.init.from=scratch with an explicit "
                "layer map",
            )
        )
    return list(named_map(layers, count, source.layers).values())


def _blueprint(
    text: str,
    source_name: str,
    source: Checkpoint,
    size: Size,
    rows: list[int],
    weights: Literal["pretrained", "finetuned"],
    task: Task,
) -> _Blueprint:
    config = student_config(source.config, size, rows, task.labels)
    total, in_blocks = _parameter_count(config, classifier=True), 12 * config.num_hidden_layers * config.hidden_size**2
    plan = StudentPlan(
        reference=text,
        source=source_name,
        source_folder=str(source.folder.resolve()) if rows else None,
        tokenizer_folder=str(source.folder.resolve()),
        weights=weights,
        copied_layers=rows,
        model_type=source.model_type,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=source.vocabulary,
        parameters=total,
        layer_parameters=in_blocks,
    )
    return _Blueprint(plan, source.folder, source.max_length)


def _parameter_count(config: Any, *, classifier: bool) -> int:
    from transformers import AutoModel, AutoModelForSequenceClassification

    factory: Any = AutoModelForSequenceClassification if classifier else AutoModel
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in factory.from_config(config).parameters())


def _refuse_too_long(
    loaded: LoadedRecipe, teachers: Sequence[Checkpoint], student: _Blueprint | None, problems: Problems
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
