"""The student before it is built: where its layers come from, and its sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from kdcli.data.task import Task
from kdcli.errors import Problem, Problems, RequestError
from kdcli.models import checkpoints
from kdcli.models.checkpoints import Checkpoint, Reference
from kdcli.models.student import Size, parse_size, student_config
from kdcli.plan.plan import StudentPlan
from kdcli.recipe.document import KeyPath
from kdcli.recipe.layers import named_map
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.schema import SCRATCH


@dataclass(frozen=True)
class Blueprint:
    """The planned student, the folder of its tokenizer, and the longest input that its positions allow."""

    plan: StudentPlan
    tokenizer_folder: Path
    max_length: int


def plan_student(
    text: str, teachers: Sequence[Checkpoint], task: Task, loaded: LoadedRecipe, problems: Problems
) -> Blueprint | None:
    """What ``--student`` asks for, as sizes and sources; None where it cannot be, with the problems noted."""
    try:
        size = parse_size(text)
        if size is None:
            return _student_from_checkpoint(text, task)
        return _student_from_teacher(text, size, teachers, task, loaded)
    except RequestError as error:
        problems.extend(error)
        return None


def _student_from_checkpoint(text: str, task: Task) -> Blueprint:
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
) -> Blueprint | None:
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
) -> Blueprint:
    config = student_config(source.config, size, rows, task.labels)
    total, in_blocks = parameter_count(config, classifier=True), 12 * config.num_hidden_layers * config.hidden_size**2
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
    return Blueprint(plan, source.folder, source.max_length)


def parameter_count(config: Any, *, classifier: bool) -> int:
    """Parameters of a model of that configuration, counted without memory for them."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    factory: Any = AutoModelForSequenceClassification if classifier else AutoModel
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in factory.from_config(config).parameters())
