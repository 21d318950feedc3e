"""What the blocks of a recipe are made of: a strict base class, and values that may change while a stage is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

MOST = 1_000_000
Number = Annotated[float, Field(ge=0)]
PositiveNumber = Annotated[float, Field(gt=0)]


class Block(BaseModel):
    """A block of a recipe: immutable, and strict about its keys and the types of its values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def form_of(value: Any) -> str:
    """Which member of a union a value is held against, so that a mistake is told about that member alone."""
    if isinstance(value, dict | BaseModel):
        return "<map>"
    if isinstance(value, list):
        return "<list>"
    return "<number>" if isinstance(value, int | float) and not isinstance(value, bool) else "<name>"


class Schedule(Block):
    """A value that changes while a stage is trained."""

    start: Annotated[
        Annotated[Annotated[float, Field(ge=0)], Tag("<number>")] | Annotated[Literal["share"], Tag("<name>")],
        Discriminator(form_of),
    ] = Field(
        alias="from",
        description="value at the beginning; share: the last value divided by the number of steps (or epochs) of the stage, "
        "so that a linear rise goes 1/E, 2/E, … of it, whatever the number E",
    )
    to: float = Field(ge=0, description="value at the end")
    shape: Literal["linear", "cosine", "exponential"] = Field("linear", description="how it gets from one to the other")
    begin: float = Field(0.0, ge=0, le=1, description="fraction of the stage before which it keeps its first value")
    end: float = Field(1.0, ge=0, le=1, description="fraction of the stage after which it keeps its last value")
    every: Literal["step", "epoch"] = Field("step", description="when it changes")

    @model_validator(mode="after")
    def _goes_forward(self) -> Schedule:
        if self.begin >= self.end:
            raise ValueError(f"begin must be before end, found {self.begin:g} and {self.end:g}")
        if self.shape == "exponential" and min(self.first(1), self.to) <= 0:
            raise ValueError("an exponential schedule needs values above 0 on both ends")
        return self

    def first(self, whole: int) -> float:
        """The value at the beginning of ``whole`` steps or epochs."""
        return self.to / whole if self.start == "share" else float(self.start)

    @property
    def stays_zero(self) -> bool:
        """Whether it is 0 from beginning to end."""
        return self.to == self.first(1) == 0


Changing = Annotated[Annotated[Number, Tag("<number>")] | Annotated[Schedule, Tag("<map>")], Discriminator(form_of)]
PositiveChanging = Annotated[
    Annotated[PositiveNumber, Tag("<number>")] | Annotated[Schedule, Tag("<map>")], Discriminator(form_of)
]
