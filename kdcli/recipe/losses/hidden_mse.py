"""``hidden-mse``: hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.loss_blocks import registered
from kdcli.recipe.losses.projection import ProjectionChoice, Tokens, projected_sides
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath


@registered
class HiddenMse(LayerLoss):
    """Mean squared error between matched hidden states, mean over tokens and width."""

    listed: ClassVar[int] = 40

    loss: Literal["hidden-mse"]
    tokens: Tokens = Field("all", description="all real tokens, the first one ([CLS]), or their mean")
    normalise: bool = Field(False, description="divide each state by its length first")
    projection: ProjectionChoice = Field(
        "auto", description="the learnable map between the widths; auto: on the student's side where they differ; null: none"
    )

    @property
    def looks_at_first_token(self) -> bool:
        """It does where it looks at no other."""
        return self.tokens == "cls"

    def needs(self) -> frozenset[str]:
        """Hidden states."""
        return frozenset({"hidden"})

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """Layer maps, and whose states are projected."""
        layers = super().settle(teachers, path, models)
        return {**layers, "projected": projected_sides(self.projection, teachers, path, models)}
