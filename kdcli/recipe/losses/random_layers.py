"""``random-layers``: hidden states of teacher layers that are drawn anew every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from kdcli.recipe.loss import LayerMaps, TeacherLoss
from kdcli.recipe.loss_blocks import registered
from kdcli.recipe.model_shapes import Models


@registered
class RandomLayers(TeacherLoss):
    """Pooled states of teacher layers that are drawn anew every epoch, projected to a small width and normalised."""

    listed: ClassVar[int] = 100

    loss: Literal["random-layers"]
    width: int = Field(128, ge=1, le=65_536, description="width that both sides are projected to")
    form: Literal["layer-wise", "concatenated"] = Field(
        "layer-wise", description="compare layer by layer, or all in one vector"
    )

    def needs(self) -> frozenset[str]:
        """Hidden states."""
        return frozenset({"hidden"})

    def reach(self, layers: LayerMaps, teachers: Sequence[str], models: Models) -> int:
        """As many layers as are drawn of the deepest teacher: those below the top."""
        deepest = max(teacher.layers for teacher in models.teachers if teacher.name in teachers)
        return drawn(models.student.layers, deepest)

    def layers_seen(self, pairs: Mapping[int, int], depth: int) -> set[int]:
        """All that may be drawn."""
        return set(range(1, below_top(depth) + 1))


def below_top(depth: int) -> int:
    """The highest layer that may be drawn: the one below the top, or the only one."""
    return max(1, depth - 1)


def drawn(student_layers: int, teacher_layers: int) -> int:
    """How many layers are drawn: as many as both have below the top."""
    return min(below_top(student_layers), below_top(teacher_layers))
