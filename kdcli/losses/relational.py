"""``relational``: relations between the samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.data.batching import Batch
from kdcli.losses.layer_term import LayerTerm, Pairs, pooled
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Reduction, numbers_on
from kdcli.losses.term_classes import computes
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.relational import Relational
from kdcli.recipe.term_plan import TermPlan

_TINY = 1e-12


@computes(Relational)
class RelationalTerm(LayerTerm):
    """Distances and angles between samples, compared with the teacher's (RKD, Park et al. 2019, eqs. 5 and 8).

    Distances between two samples are divided by their mean over the group; angles are the cosines at the middle one of three
    samples. Both are compared by Huber's loss, mean over ordered pairs and ordered triplets of different samples. Samples are
    compared within groups (of ``group``, or the whole batch), which are never parted when a batch is cut.

    Shapes: hidden states [B, L, D] or logits [B, C] on each side; widths may differ.

    Args:
        pairs: teacher name → {student layer: teacher layer}; not looked at for ``logits``.
        states: ``cls``, ``mean`` (over each model's own real tokens) or ``logits``.
        distance_weight, angle_weight: factors of the two.
        group: samples per group, three or more, or None for the whole batch.
        layer_reduction, teacher_reduction, weight, name: as in :class:`LayerTerm`.
    """

    name = "relational"

    def __init__(
        self,
        pairs: Mapping[str, Pairs],
        states: str = "mean",
        distance_weight: float = 1.0,
        angle_weight: float = 2.0,
        group: int | None = None,
        layer_reduction: Reduction = "sum",
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        if states == "logits":
            pairs = {teacher: {0: 0} for teacher in pairs}  # one comparison, whatever the layers
        super().__init__(pairs, layer_reduction, teacher_reduction, weight, name)
        self.states = states
        self.kinds = () if states == "logits" else ("hidden",)
        self.group = group or 0
        self.distance_weight, self.angle_weight = distance_weight, angle_weight
        self.parts = 2 * len(self.pairs)
        self.scale *= distance_weight + angle_weight

    @classmethod
    def planned(cls, loss: Relational, term: TermPlan, setting: Setting) -> Self:
        return cls(
            pairs=term.layers or {name: {0: 0} for name in term.teachers},
            states=loss.states,
            distance_weight=loss.distance_weight,
            angle_weight=loss.angle_weight,
            group=loss.group,
            **cls.common(loss),
        )

    def count(self, batch: Batch) -> Tensor:
        group = self.group or len(batch)
        sizes = [min(group, len(batch) - begin) for begin in range(0, len(batch), group)]
        pairs = sum(size * (size - 1) for size in sizes)
        triplets = sum(size * (size - 1) * (size - 2) for size in sizes)
        return numbers_on(batch.rows.device, [pairs, triplets]).repeat(len(self.pairs))

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        totals = []
        for teacher, rows in self.pairs.items():
            total = torch.zeros(2, device=batch.rows.device)
            for student_layer, teacher_layer in rows.items():
                ours = self._vectors(batch, outputs, STUDENT, student_layer)
                theirs = self._vectors(batch, outputs, teacher, teacher_layer)
                group = self.group or len(batch)
                for members in zip(torch.split(ours, group), torch.split(theirs, group), strict=True):
                    total = total + _differences(*members)
            factors = numbers_on(total.device, [self.distance_weight, self.angle_weight])
            totals.append(total * factors * self.factors[teacher])
        return torch.cat(totals)

    def _vectors(self, batch: Batch, outputs: Outputs, model: str, layer: int) -> Tensor:
        if self.states == "logits":
            return outputs[model].logits.float()
        return pooled(outputs[model].hidden[layer].float(), batch.views[model]["attention_mask"], self.states)


def _differences(ours: Tensor, theirs: Tensor) -> Tensor:
    """Totals [2] of Huber's loss over ordered pairs (distances) and ordered triplets (angles) of one group [g, D]."""
    apart = ~torch.eye(len(ours), dtype=torch.bool, device=ours.device)
    distances = functional.huber_loss(_distances(ours), _distances(theirs), reduction="sum")
    distinct = apart[:, :, None] & apart[:, None, :] & apart[None, :, :]  # the middle sample first
    angles = functional.huber_loss(_angles(ours), _angles(theirs), reduction="none")
    return torch.stack([distances, angles.masked_fill(~distinct, 0.0).sum()])


def _distances(states: Tensor) -> Tensor:
    """Euclidean distances between different samples, divided by their mean [g − 1, g]."""
    squares = (states[:, None] - states[None, :]).square().sum(-1)
    count = len(states)
    beside = squares.flatten()[: count * count - 1].view(count - 1, count + 1)[:, 1:]  # without the diagonal
    lengths = beside.clamp(min=_TINY).sqrt()
    return lengths / lengths.mean().clamp(min=_TINY)


def _angles(states: Tensor) -> Tensor:
    """Cosines [g, g, g] at sample j between the directions to samples i and k, as [j, i, k]."""
    directions = functional.normalize(states[None, :] - states[:, None], dim=-1, eps=1e-6)  # [j, i, D]
    return torch.matmul(directions, directions.transpose(-1, -2))
