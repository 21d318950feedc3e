"""``random-layers``: hidden states of teacher layers that are drawn anew every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdcli.data.batching import Batch
from kdcli.losses.layer_term import pooled
from kdcli.losses.projection import Projections
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Reduction, Term, share_of
from kdcli.losses.term_classes import computes
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.random_layers import RandomLayers, below_top, drawn
from kdcli.recipe.schedule import Moment
from kdcli.recipe.term_plan import TermPlan


@computes(RandomLayers)
class RandomLayersTerm(Term):
    """Pooled states of student layers against those of teacher layers drawn anew every epoch (RAIL-KD, Haidar et al. 2022).

    Every epoch as many teacher layers as the student has below its top are drawn from those below the teacher's top, in
    ascending order (of models of one layer, that one). States are averaged over each model's real tokens, both sides are
    projected to a small width and divided by their lengths; the value is the squared distance, mean over samples, and over
    layers where they are compared one by one.

    Shapes: student [B, L_S, D_S], teacher [B, L_T, D_T].

    Args:
        student_layers, student_width: depth K and width D_S.
        teacher_layers, teacher_widths: depth and width by teacher name.
        projections: where the learnable maps are kept.
        width: that both sides are projected to.
        concatenated: compare the layers in one vector instead of one by one.
        teacher_reduction, weight, name: as for all losses that look at teachers.
    """

    name = "random-layers"

    def __init__(
        self,
        student_layers: int,
        student_width: int,
        teacher_layers: Mapping[str, int],
        teacher_widths: Mapping[str, int],
        projections: Projections | None = None,
        width: int = 128,
        concatenated: bool = False,
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name)
        self.depths = dict(teacher_layers)
        self.parts = len(self.depths)
        self.concatenated = concatenated
        self.factor = share_of(self.parts, teacher_reduction)
        self.scale = self.factor * self.parts
        self.drawn = {teacher: drawn(student_layers, depth) for teacher, depth in self.depths.items()}
        bank = Projections() if projections is None else projections
        self.projections: dict[tuple[str, str, int], nn.Linear] = {}  # a plain dict: they belong to the objective
        for teacher, count in self.drawn.items():
            places, times = (1, count) if concatenated else (count, 1)
            for place in range(places):
                for side, own in (("student", student_width), ("teacher", teacher_widths[teacher])):
                    key = f"{self.name}/{teacher}/{side}/{place + 1}"
                    self.projections[teacher, side, place] = bank.between(key, own * times, width)
        self.chosen: dict[str, list[int]] = {}
        self.begin(Moment())

    @classmethod
    def planned(cls, loss: RandomLayers, term: TermPlan, setting: Setting) -> Self:
        return cls(
            student_layers=setting.student.layers,
            student_width=setting.student.width,
            teacher_layers={name: setting.teachers[name].layers for name in term.teachers},
            teacher_widths={name: setting.teachers[name].width for name in term.teachers},
            projections=setting.projections,
            width=loss.width,
            concatenated=loss.form == "concatenated",
            teacher_reduction=loss.teacher_reduction,
            weight=loss.weight,
            name=loss.name,
        )

    def begin(self, moment: Moment) -> None:
        super().begin(moment)
        for row, (teacher, depth) in enumerate(self.depths.items()):
            generator = np.random.default_rng([moment.seed, moment.stage, moment.epoch, row])
            layers = np.arange(1, below_top(depth) + 1)
            self.chosen[teacher] = sorted(generator.choice(layers, self.drawn[teacher], replace=False).tolist())

    def needs(self) -> dict[str, Wanted]:
        student = range(1, max(self.drawn.values()) + 1)
        return {STUDENT: Wanted.of("hidden", student)} | {
            teacher: Wanted.of("hidden", layers) for teacher, layers in self.chosen.items()
        }

    def may_need(self) -> dict[str, Wanted]:
        teachers = {teacher: Wanted.of("hidden", range(1, below_top(depth) + 1)) for teacher, depth in self.depths.items()}
        return self.needs() | teachers

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        totals = []
        for teacher, layers in self.chosen.items():
            ours = self._vectors(batch, outputs, STUDENT, teacher, list(range(1, len(layers) + 1)))
            theirs = self._vectors(batch, outputs, teacher, teacher, layers)
            distances = (ours - theirs).square().sum(-1)  # [layers or 1, B]
            totals.append(distances.mean(0).sum() * self.factor)
        return torch.stack(totals)

    def _vectors(self, batch: Batch, outputs: Outputs, model: str, teacher: str, layers: list[int]) -> Tensor:
        """Unit vectors [layers or 1, B, width]."""
        mask = batch.views[model]["attention_mask"]
        states = [pooled(outputs[model].hidden[layer].float(), mask, "mean") for layer in layers]
        if self.concatenated:
            states = [torch.cat(states, dim=-1)]
        side = "student" if model == STUDENT else "teacher"
        moved = [self.projections[teacher, side, place](state) for place, state in enumerate(states)]
        return functional.normalize(torch.stack(moved), dim=-1)
