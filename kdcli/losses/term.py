"""What a loss term is: sums and counts, so that the loop can divide once however a batch is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.losses.setting import Setting
from kdcli.models.output import Output, Wanted
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.schedule import Moment, value_at
from kdcli.recipe.term_plan import TermPlan

Outputs = Mapping[str, Output]
Reduction = Literal["mean", "sum"]


def share_of(count: int, reduction: Reduction) -> float:
    """The factor of each of ``count`` values under a reduction."""
    return 1.0 / count if reduction == "mean" else 1.0


def numbers_on(device: torch.device, numbers: Sequence[float]) -> Tensor:
    """Numbers [n], fp32, made there: a GPU is not waited for, as it would be for a copy."""
    return torch.stack([torch.full((), float(number), device=device) for number in numbers])


class Term(nn.Module):
    """One summand of the objective.

    A term is made of parts (one per teacher, say), each a total over some units (samples, tokens) of the batch. Its value is
    Σ over parts of total/count, where the count is taken over everything that one optimiser step sees: all micro-batches of
    all processes. That makes 8×1, 2×4 and two processes of 4 the same step.

    Attributes:
        name: stands in logs.
        weight: factor in the objective, a number or a schedule over the stage.
        parts: how many parts there are.
        scale: value of the term if every comparison that it makes had the value 1 (and samples no weights of their own).
        group: samples that must not be parted when a batch is cut; 0 for the whole batch.
        moment: where in the stage the next forward pass is.
        observing: whether the next forward pass shall leave figures worth logging in ``observed`` (they cost a little).
    """

    name: str = "term"
    parts: int = 1
    scale: float = 1.0
    group: int = 1

    def __init__(self, weight: float | Schedule = 1.0, name: str | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.name = name or self.name
        self.moment = Moment()
        self.observing = False
        self.observed: dict[str, Tensor] = {}

    @classmethod
    def planned(cls, loss: Any, term: TermPlan, setting: Setting) -> Self:
        """The term as it is planned.

        Args:
            loss: what the recipe says; a block of the kind that this term computes.
            term: what was settled when it was held against the models.
            setting: the models and the maps among which it stands.
        """
        raise NotImplementedError

    def begin(self, moment: Moment) -> None:
        """Be told where in the stage the next step is; what is drawn at random follows from that alone."""
        self.moment = moment

    def at_moment(self, value: float | Schedule) -> float:
        """A number as it is, a schedule at this moment."""
        return value_at(value, self.moment)

    def needs(self) -> dict[str, Wanted]:
        """The models that this step asks, and what must be seen of their insides."""
        raise NotImplementedError

    def may_need(self) -> dict[str, Wanted]:
        """All that any step may ask; more than :meth:`needs` where models or layers are drawn at random."""
        return self.needs()

    def count(self, batch: Batch) -> Tensor:
        """Units [parts] in the batch, fp32, known before any model has run; samples, unless a term says otherwise."""
        return torch.full((self.parts,), float(len(batch)), device=batch.rows.device)

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Totals [parts] over the batch's units, fp32."""
        raise NotImplementedError

    def remark(self, observed: Mapping[str, float]) -> str | None:
        """A sentence that the user should read, from what the term has observed lately; None if there is none."""
        return None
