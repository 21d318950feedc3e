"""``attention-kl``: attention probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.loss_blocks import registered
from kdcli.recipe.losses.heads import Heads, settled_heads
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath


@registered
class AttentionKl(LayerLoss):
    """KL divergence of the student's attention from the teacher's, mean over query tokens and heads."""

    listed: ClassVar[int] = 60

    loss: Literal["attention-kl"]
    heads: Heads = Field(
        "auto",
        description="match (equal numbers), mean over heads on both sides, a map of student head: teacher head under the "
        "teacher's name, or auto: match where the numbers are equal, else mean",
    )

    def needs(self) -> frozenset[str]:
        """Attention probabilities."""
        return frozenset({"attention"})

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """Layer maps, and how unlike heads are brought together."""
        layers = super().settle(teachers, path, models)
        return {**layers, "heads": settled_heads(self.heads, teachers, path, models)}
