"""``logits-mse``: the teachers' logits."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from kdcli.recipe.blocks import Changing
from kdcli.recipe.loss import TeacherLoss
from kdcli.recipe.loss_blocks import registered


@registered
class LogitsMse(TeacherLoss):
    """Mean squared difference of the logits."""

    listed: ClassVar[int] = 30

    loss: Literal["logits-mse"]
    factor: Changing = Field(1.0, description="multiplies the teacher's logits")

    def needs(self) -> frozenset[str]:
        """Nothing but outputs."""
        return frozenset()
