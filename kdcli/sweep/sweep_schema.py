"""What a sweep file may say: one pydantic model per block, unknown keys refused, every key with its meaning and default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from kdcli.recipe.blocks import Block

DEFAULT_TRIALS = 20
OWN_STORAGE = "sqlite"
_MOST_TRIALS = 100_000
_MOST_SEED = 2**32 - 1
_TOLERANCE = 1e-9


def _kind(value: Any) -> str:
    return "<int>" if isinstance(value, int) and not isinstance(value, bool) else "<number>"


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return "<list>"
    return "<map>" if isinstance(value, dict | Block) else "<neither>"


Number = Annotated[
    Annotated[int, Tag("<int>")] | Annotated[float, Tag("<number>")],
    Discriminator(_kind),
    WithJsonSchema({"type": "number"}),
]


class Range(Block):
    """Numbers from one to another, both included; whole ones where all that is written here is whole."""

    low: Number = Field(alias="from", description="the smallest value")
    high: Number = Field(alias="to", description="the largest value")
    log: bool = Field(False, description="draw evenly on a logarithmic scale, as learning rates want it")
    step: Number | None = Field(None, description="distance between the values; null: any value between (whole ones: 1)")

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"from must be below to, found {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        if self.step is not None:
            if self.step <= 0:
                raise ValueError(f"step must be above 0, found {self.step:g}")
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > _TOLERANCE * max(steps, 1):
                last = self.low + self.step * int(steps)
                raise ValueError(f"to must be reached in whole steps, as {last:g} is")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def values(self) -> list[int | float]:
        """All of them, where there is a step."""
        assert self.step is not None
        count = round((self.high - self.low) / self.step) + 1
        found = [self.low + place * self.step for place in range(count)]
        return found if self.whole else [float(f"{value:.12g}") for value in found]


Values = Annotated[
    Annotated[Range, Tag("<map>")] | Annotated[list[Any], Field(min_length=1), Tag("<list>")], Discriminator(_shape)
]


class Sweep(Block):
    """A whole sweep file."""

    trials: int | None = Field(
        None,
        ge=1,
        le=_MOST_TRIALS,
        description=f"how many combinations are tried at most; null: {DEFAULT_TRIALS}, for grid all of them",
    )
    seeds: list[Annotated[int, Field(ge=0, le=_MOST_SEED)]] = Field(
        default_factory=lambda: [0],
        min_length=1,
        description="each trial trains a student per seed; its value is the mean of their dev scores",
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description="tpe draws near what did well, the first ten at random; random draws evenly; grid takes every combination",
    )
    sampler_seed: int = Field(0, ge=0, le=_MOST_SEED, description="of what is drawn; the same seed draws the same")
    prune: bool = Field(
        True,
        description="a trial whose mean so far is below the median of the finished trials after as many seeds is not given the "
        "next seed; the first five are given all",
    )
    storage: str = Field(
        OWN_STORAGE,
        min_length=1,
        description="where Optuna keeps the trials: sqlite is sweep.db in the sweep's folder; or any URL that Optuna takes, "
        "through which several machines share one sweep",
    )
    parameters: dict[str, Values] = Field(
        min_length=1,
        description="what is searched: keys as --set has them, each with a list of choices or a range {from: …, to: …}",
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must differ, found {seeds}")
        return seeds
