"""The student before it is built: where its layers come from, and its sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdcli.errors import Problem, Problems, RequestError
from kdcli.models import checkpoints
from kdcli.models.checkpoints import Checkpoint, Reference
from kdcli.models.student import Size, parse_size, student_config
from kdcli.plan.model_size import parameter_count
from kdcli.plan.plan import StudentPlan
from kdcli.recipe.layer_maps import LayerMapError, named_map, resolve
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.schema import AS_LARGE_AS_TEACHER, FIRST_TEACHER, SCRATCH
from kdcli.recipe.yaml_document import KeyPath
from kdcli.tasks.kind import Kind


@dataclass(frozen=True)
class Blueprint:
    """A planned student.

    Attributes:
        plan: as it is kept.
        config: of the model that will be built.
        tokenizer_folder: where its tokenizer is.
        max_length: the longest input that its positions allow.
    """

    plan: StudentPlan
    config: Any
    tokenizer_folder: Path
    max_length: int

    def as_teacher(self, name: str, kind: Kind) -> Checkpoint:
        """What the student will be as a teacher of another one, before a weight of it is there."""
        return Checkpoint(
            name=name,
            reference=self.plan.reference,
            folder=self.tokenizer_folder,
            model_type=self.plan.model_type,
            layers=self.plan.layers,
            width=self.plan.width,
            heads=self.plan.heads,
            vocabulary=self.plan.vocabulary,
            max_length=self.max_length,
            head_labels=kind.output_names,
            shared_head=None,
            fingerprint="",
            config=self.config,
            problem_type=kind.problem_type,
        )


def plan_student(
    text: str,
    where: str,
    teachers: Sequence[Checkpoint],
    kind: Kind,
    loaded: LoadedRecipe,
    problems: Problems,
    *,
    weights: bool = True,
) -> Blueprint | None:
    """What ``--student`` or the recipe asks for, as sizes and sources; None where it cannot be, with the problems noted.

    Args:
        text: a size, ``teacher``, or a checkpoint.
        where: who asked for it, as messages begin.
        teachers: those that it may be cut from.
        kind: of task.
        loaded: the recipe.
        problems: what is wrong so far; more is added.
        weights: a checkpoint must have weights; else ``config.json`` is enough.
    """
    try:
        size = Size(teachers[0].layers) if text == AS_LARGE_AS_TEACHER else parse_size(text, where)
        if size is None:
            return _student_from_checkpoint(text, where, kind, weights)
        return _student_from_teacher(text, where, size, teachers, kind, loaded)
    except RequestError as error:
        problems.extend(error)
        return None


def _student_from_checkpoint(text: str, where: str, kind: Kind, weights: bool) -> Blueprint:
    try:
        reference = Reference("student", checkpoints.ALIASES.get(text, text), "--student")
        found = checkpoints.describe(reference, weights=weights)
    except RequestError as error:
        if "/" not in text and text not in checkpoints.ALIASES:
            raise RequestError(
                Problem(where, "is neither a size nor a checkpoint", "4L, 4L-312H, 4L-312H-12A, or a folder")
            ) from error
        raise
    size = Size(found.layers, found.width, found.heads)
    rows = list(range(1, found.layers + 1))
    blueprint = _blueprint(text, "checkpoint", "checkpoint", found, size, rows, "pretrained", kind)
    outputs = _own_outputs(found)
    kept = kind.kept_order(outputs) if outputs and found.problem_type == kind.problem_type else None
    plan = blueprint.plan.model_copy(update={"own_classes": outputs, "head_order": kept})
    return replace(blueprint, plan=plan)


def _own_outputs(checkpoint: Checkpoint) -> list[str] | None:
    """What the outputs of a checkpoint's own head are called, if it has one that can be used."""
    try:
        checkpoint.check_head()
    except RequestError:
        return None
    return list(checkpoint.head_labels) if checkpoint.head_labels else None


def _student_from_teacher(
    text: str, where: str, size: Size, teachers: Sequence[Checkpoint], kind: Kind, loaded: LoadedRecipe
) -> Blueprint:
    init = loaded.recipe.student.init
    by_name = {checkpoint.name: checkpoint for checkpoint in teachers}
    source = teachers[0] if init.source in (FIRST_TEACHER, SCRATCH) else by_name.get(init.source, teachers[0])
    if size.heads is not None and (size.width or source.width) % size.heads:
        raise RequestError(Problem(where, f"{size.heads} heads do not divide the width {size.width or source.width}"))
    resized = size.width not in (None, source.width) or size.heads not in (None, source.heads)
    if init.source == SCRATCH or resized:
        return _blueprint(text, "scratch", SCRATCH, source, size, [], init.weights, kind)
    rows = _copied_layers(size.layers, source, loaded, where)
    return _blueprint(text, "teacher", source.name, source, size, rows, init.weights, kind)


def _copied_layers(count: int, source: Checkpoint, loaded: LoadedRecipe, where: str) -> list[int]:
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
                where,
                f"is deeper than the teacher that it is cut from ({source.name} has {source.layers} layers)",
                f"at most {source.layers} layers",
                remedy=f"--student {max(1, source.layers // 2)}L, or --set student.init.from=scratch with an explicit "
                "layer map",
            )
        )
    if layers == "matched":
        return _matched_layers(count, source, loaded)
    return list(named_map(layers, count, source.layers).values())


def _matched_layers(count: int, source: Checkpoint, loaded: LoadedRecipe) -> list[int]:
    """The source's layers that the recipe's layer map gives to the student's layers 1, 2, …."""
    layers = loaded.recipe.layers
    spec = layers.get(source.name, "uniform") if isinstance(layers, dict) else layers
    path: KeyPath = ("layers", source.name) if isinstance(layers, dict) else ("layers",)
    try:
        pairs = resolve(spec, count, source.layers)
    except LayerMapError as error:
        where = loaded.document.where(path)
        raise RequestError(Problem(where, str(error), error.expected, str(spec), error.remedy)) from error
    missing = [row for row in range(1, count + 1) if not pairs.get(row)]
    if missing:
        raise RequestError(
            Problem(
                loaded.document.where(("student", "init", "layers")),
                "the recipe's layer map does not say which layers to copy",
                f"a teacher layer for each student layer 1..{count}",
                f"layers: {spec}, nothing for {', '.join(map(str, missing))}",
                "layers: uniform, or student.init.layers: uniform",
            )
        )
    return [pairs[row] for row in range(1, count + 1)]


def _blueprint(
    text: str,
    kind: Literal["teacher", "checkpoint", "scratch"],
    source_name: str,
    source: Checkpoint,
    size: Size,
    rows: list[int],
    weights: Literal["pretrained", "finetuned"],
    task_kind: Kind,
) -> Blueprint:
    config = student_config(source.config, size, rows, task_kind.output_names, task_kind.problem_type)
    try:
        total, in_blocks = parameter_count(config, classifier=True), 12 * config.num_hidden_layers * config.hidden_size**2
    except Exception as error:  # as each architecture refuses a size
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RequestError(
            Problem(f"--student {text}", f"{source.model_type} cannot be built in that size", found=why)
        ) from error
    plan = StudentPlan(
        reference=text,
        kind=kind,
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
    return Blueprint(plan, config, source.folder, source.max_length)
