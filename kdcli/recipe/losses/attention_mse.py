"""``attention-mse``: attention scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from kdcli.recipe.document import KeyPath
from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.losses.heads import Heads, settled_heads
from kdcli.recipe.planning import Models, ModelShape
from kdcli.recipe.registry import registered


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
