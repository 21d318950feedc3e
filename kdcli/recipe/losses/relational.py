"""``relational``: relations between the samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from kdcli.recipe.blocks import MOST
from kdcli.recipe.layer_maps import Layers
from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.loss_blocks import registered
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath


@registered
class Relational(LayerLoss):
    """Distances and angles between samples, compared with the teacher's (relational knowledge distillation)."""

    listed: ClassVar[int] = 90

    loss: Literal["relational"]
    states: Literal["cls", "mean", "logits"] = Field("mean", description="what stands for a sample")
    distance_weight: float = Field(1.0, ge=0, description="factor of the distances")
    angle_weight: float = Field(2.0, ge=0, description="factor of the angles")
    group: int | None = Field(
        None,
        ge=3,
        le=MOST,
        description="compare within groups of this many samples; null: within the whole batch, which is not cut",
    )
    layers: Layers | None = Field("top", description="which teacher layer supervises which student layer")

    @property
    def compares_layers(self) -> bool:
        """It does, unless logits stand for a sample."""
        return self.states != "logits"

    @property
    def looks_at_first_token(self) -> bool:
        """It does where that stands for a sample."""
        return self.states == "cls"

    def needs(self) -> frozenset[str]:
        """Hidden states, unless logits stand for a sample."""
        return frozenset({"hidden"}) if self.compares_layers else frozenset()

    def notes(self, accumulation: int) -> list[str]:
        """Say it where a batch that was to be cut is not."""
        if accumulation == 1 or self.group is not None:
            return []
        return ["relational compares all samples of a batch, so the batch is not cut: set its group to save memory"]

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """Layer maps; the group and the weights are looked at too."""
        settled = super().settle(teachers, path, models)
        if self.group is not None and self.group > models.batch_size:
            models.refuse(
                (*path, "group"), "is larger than the batch", expected=f"3..{models.batch_size}", found=str(self.group)
            )
        if not self.distance_weight + self.angle_weight:
            models.refuse(path, "distance_weight and angle_weight sum to zero", expected="one above 0 at least")
        return settled
