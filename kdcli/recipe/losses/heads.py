"""How unlike numbers of attention heads are brought together, for losses on attention maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from kdcli.recipe.blocks import form_of
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath

HeadPairs = Annotated[
    dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
    Field(min_length=1, description="student head: teacher head, both from 1"),
]
TeacherHeads = Annotated[
    Annotated[Literal["auto", "match", "mean"], Tag("<name>")] | Annotated[HeadPairs, Tag("<map>")], Discriminator(form_of)
]
Heads = Annotated[
    Annotated[Literal["auto", "match", "mean"], Tag("<name>")]
    | Annotated[dict[str, TeacherHeads], Field(min_length=1), Tag("<map>")],
    Discriminator(form_of),
]
SettledHeads = dict[str, Literal["match", "mean"] | dict[int, int]]


def settled_heads(heads: Heads, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> SettledHeads:
    """Teacher → heads are matched, averaged, or mapped; what cannot be is left out and noted."""
    models.refuse_unknown_in(heads, (*path, "heads"))
    ours, settled = models.student.heads, SettledHeads()
    for teacher in teachers:
        spec = heads.get(teacher.name, "auto") if isinstance(heads, dict) else heads
        place: KeyPath = (*path, "heads", teacher.name) if isinstance(heads, dict) else (*path, "heads")
        if isinstance(spec, dict):
            _refuse_missing(spec, teacher, place, models)
            settled[teacher.name] = spec
        elif spec == "match" and ours != teacher.heads:
            models.refuse(
                place,
                f"the numbers of heads differ, so that they cannot be matched (teacher {teacher.name})",
                expected=f"{ours} heads, as the student has",
                found=f"{teacher.heads}",
                remedy=f"heads: mean, or a map such as {{{teacher.name}: {{1: 1}}}} (student head: teacher head)",
            )
        else:
            settled[teacher.name] = "mean" if spec == "mean" or ours != teacher.heads else "match"
    return settled


def _refuse_missing(pairs: Mapping[int, int], teacher: ModelShape, place: KeyPath, models: Models) -> None:
    for side, heads, count in (
        ("student", pairs.keys(), models.student.heads),
        (f"teacher {teacher.name}", pairs.values(), teacher.heads),
    ):
        beyond = [head for head in heads if head > count]
        if beyond:
            models.refuse(place, f"{side} head {beyond[0]} does not exist", expected=f"1..{count}")
