"""What a user asked for, as plain data: it is kept in the run folder, and a resumed run reads it from there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kdcli.data.task_loading import DataRequest
from kdcli.recipe.catalogue import DEFAULT_RECIPE
from kdcli.recipe.yaml_document import Override

Effort = Literal["quick", "normal", "thorough"]


class TrainRequest(BaseModel):
    """The flags of ``kdcli distill`` and ``kdcli cofinetune`` that decide about results.

    Attributes:
        command: which of the two.
        teachers, student, recipe: as the user wrote them.
        overrides: values put in place of the recipe's, in order.
        effort: how many epochs a recipe trains that leaves their number open.
        seed: of everything drawn at random, except the held-out dev split.
        device: auto, cpu or cuda.
        baseline: also train the same student without teachers; None: for the starter task only.
        allow_weak_teachers: go on with a teacher that is at chance.
        track: further trackers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Literal["distill", "cofinetune"]
    teachers: str
    student: str | None = None
    data: DataRequest = DataRequest()
    recipe: str = DEFAULT_RECIPE
    overrides: tuple[Override, ...] = ()
    effort: Effort = "normal"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    baseline: bool | None = None
    allow_weak_teachers: bool = False
    track: tuple[str, ...] = ()

    def changes_from(self, original: TrainRequest) -> str:
        """The fields that differ, as messages tell them; empty for equal requests."""
        names = [name for name in type(self).model_fields if getattr(self, name) != getattr(original, name)]
        return ", ".join(f"{name}: {getattr(self, name)!r}, was {getattr(original, name)!r}" for name in names)

    def as_data(self) -> dict[str, Any]:
        """As plain data for ``plan.yaml``."""
        return self.model_dump(mode="json")
