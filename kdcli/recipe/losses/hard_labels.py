"""``hard-labels``: the gold labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from kdcli.recipe.loss import LossBlock
from kdcli.recipe.loss_blocks import registered


@registered
class HardLabels(LossBlock):
    """Cross-entropy against the gold label; rows without one are left out."""

    listed: ClassVar[int] = 10

    loss: Literal["hard-labels"]

    def needs(self) -> frozenset[str]:
        """Nothing but outputs."""
        return frozenset()
