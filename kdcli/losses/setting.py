"""The models and maps among which a loss term stands once it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kdcli.losses.projection import Projections
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind


class Sizes(Protocol):
    """How large a model is; planned teachers and students are."""

    @property
    def layers(self) -> int:
        """Transformer blocks."""

    @property
    def width(self) -> int:
        """Of the hidden states."""

    @property
    def parameters(self) -> int:
        """Of the whole model with its head."""


@dataclass(frozen=True)
class Setting:
    """What a term is built with, beside what is planned of it.

    Attributes:
        student: the student's sizes.
        teachers: the teachers' sizes by name, of all that the term may look at.
        projections: where the learnable maps of the training are kept.
        dev_scores: teacher → score on dev, for terms that rank teachers.
        kind: of task.
    """

    student: Sizes
    teachers: Mapping[str, Sizes]
    projections: Projections
    dev_scores: Mapping[str, float] = field(default_factory=dict)
    kind: Kind = CLASSES
