"""``attention-mse``: attention scores."""

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
class AttentionMse(LayerLoss):
    """Mean squared error between attention scores before the softmax, mean over heads and real cells."""

    listed: ClassVar[int] = 70

    loss: Literal["attention-mse"]
    heads: Heads = Field("auto", description="as for attention-kl")

    def needs(self) -> frozenset[str]:
        """Attention scores."""
        return frozenset({"scores"})

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """Layer maps, and how unlike heads are brought together."""
        layers = super().settle(teachers, path, models)
        return {**layers, "heads": settled_heads(self.heads, teachers, path, models)}
