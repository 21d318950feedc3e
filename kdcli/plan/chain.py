"""Who teaches whom: the teachers, the assistants on the way, the student; each training planned against its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdcli.errors import Problems, RequestError
from kdcli.models.checkpoints import Checkpoint
from kdcli.models.student import parse_size
from kdcli.plan.blueprint import Blueprint, plan_student
from kdcli.plan.loss_shapes import student_shape, teacher_shape
from kdcli.plan.plan import DISTILL, HopPlan
from kdcli.plan.stages import plan_stages
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.model_shapes import Models, refuse_unknown
from kdcli.recipe.schema import AS_LARGE_AS_TEACHER, FIRST_TEACHER, MIDWAY, SCRATCH, Assistant, settled
from kdcli.recipe.yaml_document import KeyPath
from kdcli.tasks.kind import Kind

_NOBODY = ""


@dataclass(frozen=True)
class Hop:
    """One training: its plan, the student as it will be, and those who teach it."""

    plan: HopPlan
    blueprint: Blueprint
    teachers: list[Checkpoint]


def plan_hops(
    student: str,
    teachers: Sequence[Checkpoint],
    kind: Kind,
    loaded: LoadedRecipe,
    rows_per_epoch: int,
    problems: Problems,
    *,
    flagged: bool = True,
    weights: bool = True,
) -> list[Hop]:
    """The trainings from the teachers to the student; what cannot be planned is noted as a problem.

    Args:
        student: its size, ``teacher``, or a checkpoint.
        teachers: those that the user named.
        kind: of task.
        loaded: the recipe.
        rows_per_epoch: training samples.
        problems: what is wrong so far; more is added.
        flagged: the user named the student on the command line; else the recipe did.
        weights: a student that is a checkpoint must have weights; else ``config.json`` is enough.
    """
    _refuse_unknown_names(loaded, teachers, problems)
    where = f"--student {student}" if flagged else loaded.document.where(("student", "size"))
    last = plan_student(student, where, teachers, kind, loaded, problems, weights=weights)
    if last is None:
        return []
    given = [teacher.name for teacher in teachers]
    hops: list[Hop] = []
    now = list(teachers)
    for place, entry in enumerate(loaded.recipe.assistants):
        about = Assistant(size=entry) if isinstance(entry, str) else entry
        size = _assistant_size(about.size, place, now[0], last, loaded, problems)
        if size == _NOBODY:
            continue
        there = loaded.document.where(("assistants", place))
        assistant = None if size is None else plan_student(size, there, now, kind, loaded, problems)
        if assistant is None:
            return hops
        name = _assistant_name(place, given)
        hops.append(
            _hop(
                name,
                assistant,
                now,
                given,
                loaded,
                rows_per_epoch,
                problems,
                about.epochs,
                probabilities=kind.has_probabilities,
            )
        )
        now = [assistant.as_teacher(name, kind)]
    if loaded.recipe.assistants:
        again = plan_student(student, where, now, kind, loaded, problems, weights=weights)
        if again is None:
            return hops
        last = again
    return [*hops, _hop(DISTILL, last, now, given, loaded, rows_per_epoch, problems, probabilities=kind.has_probabilities)]


def _assistant_name(place: int, given: Sequence[str]) -> str:
    """``assistant-1``; where the user has called a teacher so, a name that is not taken."""
    name = f"assistant-{place + 1}"
    while name in given:
        name = f"own-{name}"
    return name


def _hop(
    name: str,
    student: Blueprint,
    teachers: list[Checkpoint],
    given: Sequence[str],
    loaded: LoadedRecipe,
    rows_per_epoch: int,
    problems: Problems,
    times: float = 1.0,
    *,
    probabilities: bool = True,
) -> Hop:
    models = Models(
        document=loaded.document,
        layers=loaded.recipe.layers,
        batch_size=settled(loaded.recipe.training.batch_size),
        teachers=[teacher_shape(teacher) for teacher in teachers],
        given=given,
        student=student_shape(student),
        problems=problems,
        probabilities=probabilities,
    )
    stages = plan_stages(name, loaded.recipe, models, rows_per_epoch, times)
    plan = HopPlan(name=name, student=student.plan, teachers=[teacher.name for teacher in teachers], stages=stages)
    return Hop(plan, student, teachers)


def _assistant_size(
    text: str, place: int, teacher: Checkpoint, student: Blueprint, loaded: LoadedRecipe, problems: Problems
) -> str | None:
    """The assistant's size in layers; None if it is neither between its teacher and the student nor as deep as its teacher.

    :data:`_NOBODY` in place of one that is as deep as its teacher, where the student is so itself.
    """
    deepest, depth = teacher.layers, student.plan.layers
    where = loaded.document.where(("assistants", place))
    if text == AS_LARGE_AS_TEACHER:
        return f"{deepest}L" if depth < deepest else _NOBODY
    if text == MIDWAY:
        layers = (deepest + depth + 1) // 2
    else:
        try:
            size = parse_size(text, where)
        except RequestError as error:
            problems.extend(error)
            return None
        layers = size.layers if size is not None else -1
    if depth < layers < deepest:
        return f"{layers}L" if text == MIDWAY else text
    problems.add(
        where,
        "is not an assistant between its teacher and the student",
        expected=f"{AS_LARGE_AS_TEACHER}, {MIDWAY}, or a size of more than {depth} and less than {deepest} layers, such as "
        f"{(deepest + depth) // 2}L"
        if deepest - depth > 1
        else f"a student that is two layers or more shallower than {teacher.name} ({deepest} layers; the student has {depth})",
        found=text,
    )
    return None


def _refuse_unknown_names(loaded: LoadedRecipe, teachers: Sequence[Checkpoint], problems: Problems) -> None:
    """Names in the recipe, outside of the stages, that no teacher has."""
    recipe = loaded.recipe
    used: list[tuple[KeyPath, str]] = []
    if isinstance(recipe.layers, dict):
        used += [(("layers", name), name) for name in recipe.layers]
    source = recipe.student.init.source
    if source not in (FIRST_TEACHER, SCRATCH):
        used.append((("student", "init", "from"), source))
    for path, name in used:
        refuse_unknown(name, path, [teacher.name for teacher in teachers], loaded.document, problems)
