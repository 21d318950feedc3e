"""``relation-kl``: relations between the tokens inside the attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from kdcli.recipe.blocks import form_of
from kdcli.recipe.layer_maps import Layers
from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.loss_blocks import registered
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath

Relation = Literal["queries", "keys", "values"]
_MOST_HEADS = 48


@registered
class RelationKl(LayerLoss):
    """KL divergence between relations of tokens inside the attention, softmax(XXᵀ/√d), mean over tokens and heads."""

    listed: ClassVar[int] = 80

    loss: Literal["relation-kl"]
    relations: list[Relation] = Field(["queries", "keys", "values"], min_length=1, description="which projections X")
    relation_heads: Annotated[
        Annotated[Literal["auto"] | None, Tag("<name>")] | Annotated[int, Field(ge=1), Tag("<number>")], Discriminator(form_of)
    ] = Field(
        "auto",
        description="heads that the width is cut into for this; auto: 48 as in the paper, or the largest number below that "
        "divides both widths; null: the attention's own, which must match",
    )
    layers: Layers | None = Field("top", description="which teacher layer supervises which student layer")

    def needs(self) -> frozenset[str]:
        """The projected states that it relates."""
        return frozenset(self.relations)

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """Layer maps, and how many heads both widths are cut into."""
        layers = super().settle(teachers, path, models)
        return {**layers, "relation_heads": self._relation_heads(teachers, path, models)}

    def _relation_heads(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, int | None]:
        student, settled = models.student, {}
        asked, place = self.relation_heads, (*path, "relation_heads")
        for teacher in teachers:
            widths = (student.width, teacher.width)
            common = max(count for count in range(1, _MOST_HEADS + 1) if not any(width % count for width in widths))
            if asked is None and student.heads != teacher.heads:
                models.refuse(
                    place,
                    f"the numbers of heads differ ({student.heads} and {teacher.heads} of teacher {teacher.name})",
                    expected="a number of relation heads that both widths can be cut into",
                    remedy="relation_heads: auto",
                )
            elif isinstance(asked, int) and any(width % asked for width in widths):
                models.refuse(
                    place,
                    "does not divide both widths",
                    expected=f"a divisor of {student.width} (student) and {teacher.width} (teacher {teacher.name})",
                    found=str(asked),
                    remedy=f"relation_heads: {common}",
                )
            settled[teacher.name] = common if asked == "auto" else asked
        return settled
