"""Learnable maps between unlike widths, for losses on hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from kdcli.recipe.blocks import Block, form_of
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath

Tokens = Literal["all", "cls", "mean"]
Side = Literal["teacher", "student"]


class Projection(Block):
    """A learnable linear map that brings two widths together; it belongs to the objective, not to the student."""

    side: Side = Field("student", description="whose states are projected")
    share: Literal["per-layer", "per-teacher"] = Field(
        "per-layer", description="one matrix per matched pair of layers, or one per teacher"
    )


ProjectionChoice = Annotated[
    Annotated[Literal["auto"] | None, Tag("<name>")] | Annotated[Projection, Tag("<map>")], Discriminator(form_of)
]


def projected_sides(
    projection: ProjectionChoice, teachers: Sequence[ModelShape], path: KeyPath, models: Models
) -> dict[str, Side | None]:
    """Teacher → whose states are projected; None where nothing is."""
    ours = models.student.width
    unlike = [teacher for teacher in teachers if teacher.width != ours]
    if projection is None and unlike:
        models.refuse(
            (*path, "projection"),
            "the widths differ, so a projection is needed",
            expected=f"{ours} on both sides",
            found=", ".join(f"{teacher.name} {teacher.width}" for teacher in unlike),
            remedy="projection: auto",
        )
    if isinstance(projection, Projection):
        return {teacher.name: projection.side for teacher in teachers}
    return {teacher.name: "student" if projection and teacher.width != ours else None for teacher in teachers}
