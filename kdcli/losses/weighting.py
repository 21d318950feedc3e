"""How much each teacher counts on each sample.

All functions take the teachers' outputs [N, B, …] (N teachers, in order; logits [N, B, C] where there are classes) and return
weights [N, B]. A weight of 1 is the neutral one; what is normalised has the mean 1 over the teachers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from kdcli.losses.term import numbers_on
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind


def errors(logits: Tensor, targets: Tensor, kind: Kind = CLASSES) -> Tensor:
    """The hard loss [N, B] of each teacher, such as the cross-entropy in nats; 0 for samples without a target."""
    wanted = targets.expand(len(logits), *targets.shape)
    return kind.hard_losses(logits.flatten(0, 1), wanted.flatten(0, 1)).view(wanted.shape[:2])


def uniform(logits: Tensor) -> Tensor:
    """1 everywhere."""
    return torch.ones(logits.shape[:2], device=logits.device)


def fixed(logits: Tensor, weights: Sequence[float]) -> Tensor:
    """The same weight for all samples of a teacher."""
    return numbers_on(logits.device, weights)[:, None].expand(logits.shape[:2])


def inverse_error(logits: Tensor, targets: Tensor, kind: Kind = CLASSES) -> Tensor:
    """1/(1 + CE(y, z)), in (0, 1]: a teacher that is wrong on a sample weighs less there (MT-BERT, eq. 5)."""
    return 1.0 / (1.0 + errors(logits, targets, kind))


def softmax_error(logits: Tensor, targets: Tensor, kind: Kind = CLASSES) -> Tensor:
    """N · softmax over the teachers of −CE(y, z): by how much likelier each of them holds the gold label."""
    return len(logits) * functional.softmax(-errors(logits, targets, kind), dim=0)


def confidence(logits: Tensor, kind: Kind = CLASSES) -> Tensor:
    """The largest class probability, from 1/C to 1; needs no labels."""
    return kind.probabilities(logits.float()).amax(-1)


def agreement(logits: Tensor, kind: Kind = CLASSES) -> Tensor:
    """1 − total variation between a teacher's distribution and the mean of the others', from 0 to 1; needs no labels.

    For text without labels: a teacher that stands alone there weighs less. One teacher agrees with itself: 1.
    """
    if len(logits) == 1:
        return uniform(logits)
    probabilities = kind.probabilities(logits.float())
    others = (probabilities.sum(0, keepdim=True) - probabilities) / (len(logits) - 1)
    return 1.0 - 0.5 * (probabilities - others).abs().sum(-1)


def by_uncertainty(logits: Tensor, uncertainty: Tensor, sizes: Sequence[int]) -> Tensor:
    """Unsure samples lean on the smallest teacher, sure ones on the largest (Dynamic KD, Li et al. 2021).

    Teachers stand at equal distances from the smallest (0) to the largest (1); a sample stands at 1 − u and its weight is
    shared linearly between its two neighbours (with two teachers: u and 1 − u), times N.

    Shapes: uncertainty u [B], from 0 to 1.
    """
    count = len(logits)
    if count == 1:
        return uniform(logits)
    rising = sorted(range(count), key=lambda row: sizes[row])
    places = numbers_on(logits.device, [rising.index(row) / (count - 1) for row in range(count)])
    distances = (places[:, None] - (1.0 - uncertainty)[None, :]).abs() * (count - 1)
    return count * (1.0 - distances).clamp(min=0.0)


def uncertainty_of(student: Tensor, kind: Kind = CLASSES) -> Tensor:
    """Entropy of the student's distribution divided by log C, from 0 to 1. Shapes: logits [B, C] → [B]."""
    logs = kind.log_probabilities(student.detach())
    return -(logs.exp() * logs).sum(-1) / math.log(logs.shape[-1])


def ensemble_correctness(logits: Tensor, targets: Tensor, kind: Kind = CLASSES) -> Tensor:
    """1/(1 + CE(y, p̄)) of the teachers' mean distribution p̄ [B], in (0, 1]; 1 for samples without a target."""
    return 1.0 / (1.0 + kind.losses_of_mean(logits, targets))


def ensemble_agreement(logits: Tensor, kind: Kind = CLASSES) -> Tensor:
    """The teachers' mean agreement [B], from 0 to 1."""
    return agreement(logits, kind).mean(0)


def ensemble_disagreement(logits: Tensor, kind: Kind = CLASSES) -> Tensor:
    """1 − the teachers' mean agreement [B], from 0 to 1; a single teacher has nobody to disagree with: 1.

    It marks samples that are hard and worth learning, where no gold label says so (UniKD, Wu et al. 2022, by its abstract;
    the function itself is ours).
    """
    return 1.0 - ensemble_agreement(logits, kind) if len(logits) > 1 else logits.new_ones(logits.shape[1])


def normalised(weights: Tensor) -> Tensor:
    """Weights [N, B] scaled to the mean 1 over the teachers."""
    return weights / weights.mean(0, keepdim=True).clamp(min=1e-12)


@dataclass(frozen=True)
class Judged:
    """What weights follow from.

    Attributes:
        logits: of the teachers that are asked [N, B, …].
        targets: gold [B, …]; None where nobody has asked for any.
        student: the student's outputs [B, …].
        sizes: the teachers' parameters.
        kind: of task.
    """

    logits: Tensor
    targets: Tensor | None
    student: Tensor
    sizes: Sequence[int]
    kind: Kind = CLASSES

    @cached_property
    def unsure(self) -> Tensor:
        """The student's uncertainty [B], see :func:`uncertainty_of`."""
        return uncertainty_of(self.student, self.kind)

    @property
    def gold(self) -> Tensor:
        """The targets, which have to be there."""
        assert self.targets is not None
        return self.targets


WEIGHTINGS: Mapping[str, Callable[[Judged], Tensor]] = {
    "uniform": lambda judged: uniform(judged.logits),
    "inverse-error": lambda judged: inverse_error(judged.logits, judged.gold, judged.kind),
    "softmax-error": lambda judged: softmax_error(judged.logits, judged.gold, judged.kind),
    "confidence": lambda judged: confidence(judged.logits, judged.kind),
    "agreement": lambda judged: agreement(judged.logits, judged.kind),
    "uncertainty": lambda judged: by_uncertainty(judged.logits, judged.unsure, judged.sizes),
}
"""Weights [N, B] by the names of :data:`kdcli.recipe.weightings.WEIGHTINGS`."""

SCALES: Mapping[str, Callable[[Judged], Tensor]] = {
    "correctness": lambda judged: ensemble_correctness(judged.logits, judged.gold, judged.kind),
    "agreement": lambda judged: ensemble_agreement(judged.logits, judged.kind),
    "disagreement": lambda judged: ensemble_disagreement(judged.logits, judged.kind),
}
"""Factors [B] by the names of :data:`kdcli.recipe.weightings.SCALES`."""
