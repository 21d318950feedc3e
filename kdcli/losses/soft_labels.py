"""``soft-labels``: the teachers' class distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses import weighting as weights_by
from kdcli.losses.divergences import DIVERGENCES
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs, Reduction, Term, share_of
from kdcli.losses.term_classes import computes
from kdcli.losses.weighting import Judged
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.soft_labels import SoftLabels
from kdcli.recipe.schedule import Moment
from kdcli.recipe.term_plan import TermPlan
from kdcli.recipe.weightings import NONE, WEIGHTINGS
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind

_FLAT = 0.02
_ENOUGH = 5


@computes(SoftLabels)
class SoftLabelsTerm(Term):
    """Distance between what the student says and what each teacher says, mean over samples.

    Where there are classes, of the softened class distributions:

    Σ_i or mean_i of w_i · CE(softmax(z_i/t), z_S/t); t² only where asked for (Hinton et al. 2015 do, MT-BERT's eq. 5 does not).
    Other divergences, weights per sample and teacher, and drawing one teacher per step (SKDBERT, Ding et al. 2023) are options.

    Shapes: outputs [B, …] on both sides.

    Args:
        teachers: their names.
        temperature: t, a number or a schedule.
        temperature_squared: multiply by t².
        divergence: one of :data:`DIVERGENCES`.
        weighting: a name of the recipe language, or teacher → weight.
        normalise_weights: scale a sample's weights to the mean 1 over the teachers.
        scale: ``correctness``, ``agreement`` or ``disagreement`` of the ensemble as a further factor per sample, or ``none``.
        unlabelled_weighting, unlabelled_scale: the same two for samples without a gold label; None does there as elsewhere.
        min_uncertainty: samples on which the student is surer than this are left out (they still count in the mean).
        chances: teacher → chance of being the one that a step asks; None asks all.
        sizes: teacher → parameters, for weighting by uncertainty.
        teacher_reduction: how the teachers' values become one.
        weight, name: of the term.
        kind: of task.
    """

    name = "soft-labels"

    def __init__(
        self,
        teachers: Sequence[str],
        temperature: float | Schedule = 1.0,
        temperature_squared: bool = False,
        divergence: str = "cross-entropy",
        weighting: str | Mapping[str, float] = "uniform",
        normalise_weights: bool = False,
        scale: str = "none",
        min_uncertainty: float = 0.0,
        chances: Mapping[str, float] | None = None,
        sizes: Mapping[str, int] | None = None,
        teacher_reduction: Reduction = "mean",
        weight: float | Schedule = 1.0,
        name: str | None = None,
        unlabelled_weighting: str | None = None,
        unlabelled_scale: str | None = None,
        kind: Kind = CLASSES,
    ) -> None:
        super().__init__(weight, name)
        self.kind = kind
        self.teachers = tuple(teachers)
        self.parts = len(self.teachers)
        self.unlabelled_weighting, self.unlabelled_scale = unlabelled_weighting, unlabelled_scale
        self.temperature, self.squared = temperature, temperature_squared
        self.divergence = DIVERGENCES[divergence]
        self.weighting, self.normalise, self.ensemble_scale = weighting, normalise_weights, scale
        self.min_uncertainty = min_uncertainty
        self.chances = None if chances is None else np.array([chances[name] for name in self.teachers])
        self.sizes = [] if sizes is None else [sizes[name] for name in self.teachers]
        asked = self.parts if chances is None else 1
        self.factor = share_of(asked, teacher_reduction)
        self.scale = self.factor * asked
        self.asked = self.teachers
        self.begin(Moment())
        self._spreads: list[float] = []

    @classmethod
    def planned(cls, loss: SoftLabels, term: TermPlan, setting: Setting) -> Self:
        weighting = loss.weighting
        if isinstance(weighting, dict):  # of an assistant, which nobody has named, it says nothing
            weighting = {name: weighting.get(name, 1.0) for name in term.teachers}
        return cls(
            teachers=term.teachers,
            temperature=loss.temperature,
            temperature_squared=loss.temperature_squared,
            divergence=loss.divergence,
            weighting=weighting,
            normalise_weights=loss.normalise_weights,
            scale=loss.scale,
            min_uncertainty=loss.min_uncertainty,
            chances=_chances(loss, term.teachers, setting.dev_scores),
            sizes={name: setting.teachers[name].parameters for name in term.teachers},
            teacher_reduction=loss.teacher_reduction,
            weight=loss.weight,
            name=loss.name,
            unlabelled_weighting=loss.unlabelled_weighting,
            unlabelled_scale=loss.unlabelled_scale,
            kind=setting.kind,
        )

    def begin(self, moment: Moment) -> None:
        super().begin(moment)
        if self.chances is not None:
            generator = np.random.default_rng([moment.seed, moment.stage, moment.step])
            self.asked = (self.teachers[generator.choice(self.parts, p=self.chances / self.chances.sum())],)

    def needs(self) -> dict[str, Wanted]:
        return {name: Wanted() for name in (STUDENT, *self.asked)}

    def may_need(self) -> dict[str, Wanted]:
        return {name: Wanted() for name in (STUDENT, *self.teachers)}

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        temperature = self.at_moment(self.temperature)
        weights = self._weights(batch, outputs)  # [N, B]
        student = self.kind.softened(outputs[STUDENT].logits, temperature)
        factor = self.factor * (temperature**2 if self.squared and self.kind.softens else 1.0)
        totals = {}
        for row, name in enumerate(self.asked):
            teacher = self.kind.softened(outputs[name].logits, temperature)
            distance = self.kind.soft_losses(student, teacher, self.divergence)  # [B]
            totals[name] = (weights[row] * distance).sum() * factor
        nothing = torch.zeros((), device=student.device)
        return torch.stack([totals.get(name, nothing) for name in self.teachers])

    def _weights(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Weights [N, B] of the teachers that are asked, from out-of-fold logits where there are such."""
        logits = torch.stack([self._judged_by(name, batch, outputs) for name in self.asked])
        judged = Judged(logits, batch.targets, outputs[STUDENT].logits, self.sizes, self.kind)
        unlabelled = None  # without probabilities, samples without a label are weighted as the others are
        if batch.targets is not None and self.kind.has_probabilities:
            unlabelled = ~self.kind.labelled(batch.targets)
        weights = self._by_teacher(self.weighting, judged)
        if unlabelled is not None and self.unlabelled_weighting is not None:
            weights = torch.where(unlabelled, self._by_teacher(self.unlabelled_weighting, judged), weights)
        if self.normalise:
            weights = weights_by.normalised(weights)
        if self.observing:
            for row, name in enumerate(self.asked):
                self.observed[f"weight-mean/{name}"] = weights[row].mean()
                self.observed[f"weight-spread/{name}"] = weights[row].std(correction=0)
        scale = self._scale(self.ensemble_scale, judged)
        if unlabelled is not None and self.unlabelled_scale is not None:
            scale = torch.where(unlabelled, self._scale(self.unlabelled_scale, judged), scale)
        weights = weights * scale
        if self.min_uncertainty > 0:
            kept = judged.unsure >= self.min_uncertainty
            weights = weights * kept
            if self.observing:
                self.observed["kept"] = kept.float().mean()
        return weights

    def _judged_by(self, name: str, batch: Batch, outputs: Outputs) -> Tensor:
        """The outputs [B, …] that a teacher is weighted by; no copy has been asked about samples without a label."""
        logits = outputs[name].logits.float()
        if name not in batch.out_of_fold:
            return logits
        assert batch.targets is not None
        labelled = self.kind.labelled(batch.targets)
        return torch.where(labelled.view(-1, *[1] * (logits.dim() - 1)), batch.out_of_fold[name].float(), logits)

    def _by_teacher(self, how: str | Mapping[str, float], judged: Judged) -> Tensor:
        if not isinstance(how, str):
            return weights_by.fixed(judged.logits, [how[name] for name in self.asked])
        return weights_by.WEIGHTINGS[how](judged)

    def _scale(self, how: str, judged: Judged) -> Tensor:
        """The factor of each sample [B]."""
        return judged.logits.new_ones(judged.logits.shape[1]) if how == NONE else weights_by.SCALES[how](judged)

    def remark(self, observed: Mapping[str, float]) -> str | None:
        """Say it when weights that are computed turn out to be the same everywhere."""
        if not isinstance(self.weighting, str) or self.weighting == "uniform":
            return None
        means = [value for key, value in observed.items() if key.startswith("weight-mean/")]
        spreads = [value for key, value in observed.items() if key.startswith("weight-spread/")]
        self._spreads.append(max([*spreads, max(means, default=0.0) - min(means, default=0.0)]))
        if len(self._spreads) < _ENOUGH or max(self._spreads[-_ENOUGH:]) >= _FLAT:
            return None
        remedy = "teachers.out_of_fold: 5 weights them by what they say of rows that they have not seen"
        if WEIGHTINGS[self.weighting].looks_at != "labels":
            remedy = "weighting: uniform does the same"
        return (
            f"{self.name}: weighting by {self.weighting} says nothing here: the weights differ by less than {_FLAT} between "
            f"samples and teachers; {remedy}"
        )


def _chances(loss: SoftLabels, names: Sequence[str], dev_scores: Mapping[str, float]) -> dict[str, float] | None:
    """Teacher → chance of being drawn: alike, or by rank (the best of N gets N shares, the worst one)."""
    if loss.draw is None:
        return None
    if loss.draw == "uniform":
        return dict.fromkeys(names, 1.0 / len(names))
    ranked = sorted(names, key=lambda name: dev_scores[name])
    return {name: 2.0 * (ranked.index(name) + 1) / (len(names) * (len(names) + 1)) for name in names}
