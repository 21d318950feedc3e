"""A term of the objective as it is planned: the loss that a recipe names, with all that the models settle."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from kdcli.recipe.loss_blocks import Loss
from kdcli.recipe.losses.heads import SettledHeads
from kdcli.recipe.model_shapes import Models
from kdcli.recipe.yaml_document import KeyPath


class TermPlan(BaseModel):
    """One term of an objective, resolved against the models.

    Attributes:
        loss: the term as the recipe gives it.
        teachers: whom it looks at.
        layers: teacher name → {student layer: teacher layer}, for losses that compare layers.
        heads: teacher name → how unlike heads are brought together, for losses on attention maps.
        relation_heads: teacher name → heads that both widths are cut into, or None for the attention's own, for relations.
        projected: teacher name → whose states are projected, or None, for losses on hidden states.
        more: what else the loss has settled, by name; plans show it where there is something.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Loss
    teachers: list[str] = []
    layers: dict[str, dict[int, int]] = {}
    heads: SettledHeads = {}
    relation_heads: dict[str, int | None] = {}
    projected: dict[str, Literal["teacher", "student"] | None] = {}
    more: dict[str, Any] = {}

    @model_serializer(mode="wrap")
    def _without_nothing_more(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if not data.get("more"):
            data.pop("more", None)
        return data


def plan_term(loss: Loss, path: KeyPath, models: Models) -> TermPlan:
    """Resolve one term; what cannot be resolved is left out and noted as a problem.

    Args:
        loss: the term.
        path: its key path in the recipe.
        models: what it is held against.
    """
    settled = loss.plan(path, models)
    known = {name: value for name, value in settled.items() if name in TermPlan.model_fields}
    return TermPlan(loss=loss, **known, more={name: value for name, value in settled.items() if name not in known})
