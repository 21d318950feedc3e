"""The models of a training as the losses of a recipe are held against them."""

from __future__ import annotations

from functools import partial
from typing import Any

from kdcli.models.checkpoints import Checkpoint
from kdcli.models.student import STUDENT
from kdcli.plan.blueprint import Blueprint
from kdcli.plan.model_size import internals
from kdcli.recipe.model_shapes import ModelShape


def teacher_shape(checkpoint: Checkpoint) -> ModelShape:
    """A teacher, from its configuration alone."""
    return _shape(checkpoint.name, checkpoint, checkpoint.config)


def student_shape(student: Blueprint) -> ModelShape:
    """The student before it is built."""
    return _shape(STUDENT, student.plan, student.config)


def _shape(name: str, about: Any, config: Any) -> ModelShape:
    return ModelShape(
        name=name,
        reference=about.reference,
        model_type=config.model_type,
        layers=about.layers,
        width=about.width,
        heads=about.heads,
        weight_groups=getattr(config, "num_hidden_groups", about.layers),
        shows=partial(internals, config),
    )
