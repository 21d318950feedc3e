"""The plan: a request with every number resolved, as it is shown by ``--dry-run`` and kept in ``plan.yaml``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kdcli.recipe.schema import Loss, Recipe

TeacherKind = Literal["cofinetune", "cofinetuned", "finetuned"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherPlan(_Part):
    """One teacher.

    Attributes:
        kind: ``cofinetune`` (a bare encoder, to be trained here), ``cofinetuned`` (with a shared head on disk) or
            ``finetuned`` (with its own head).
        order: for each class of the task, the index of the teacher's output; None before co-finetuning.
        parameters: of the whole checkpoint.
        same_tokens: its tokenizer is the student's.
    """

    name: str
    kind: TeacherKind
    reference: str
    folder: str
    model_type: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    parameters: int
    order: list[int] | None
    fingerprint: str
    same_tokens: bool = False


class StudentPlan(_Part):
    """The student.

    Attributes:
        reference: as the user asked for it.
        source: name of the teacher that it is cut from, ``scratch`` or ``checkpoint``.
        source_folder: where the copied weights are (pre-trained ones), or None.
        copied_layers: for student layer 1, 2, … the source's layer.
        parameters: of the whole model with its head.
        layer_parameters: of the transformer blocks alone.
    """

    reference: str
    source: str
    source_folder: str | None
    tokenizer_folder: str
    weights: Literal["pretrained", "finetuned"]
    copied_layers: list[int]
    model_type: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    parameters: int
    layer_parameters: int


class StagePlan(_Part):
    """One stage of training.

    Attributes:
        phase: which model is trained: the teachers, the student, or the baseline.
        steps: optimiser steps.
        learning_rates: peak rates of the pre-trained parts, of fresh heads, and of projections.
        terms: the terms of the objective as the recipe gives them.
    """

    phase: Literal["cofinetune", "distill"]
    name: str
    epochs: float
    steps: int
    learning_rates: dict[Literal["body", "head", "projection"], float]
    terms: list[Loss]


class SplitPlan(_Part):
    """One split of the task."""

    rows: int
    source: str
    fingerprint: str


class TaskPlan(_Part):
    """The task."""

    name: str
    labels: list[str]
    metric: str
    pairs: bool
    starter: bool
    splits: dict[str, SplitPlan]
    notes: list[str]


class Estimate(_Part):
    """Rough cost on this machine; from the sizes, the mean text length and a short matrix product, not from a run.

    Attributes:
        memory_bytes: largest resident memory of models, optimiser and activations.
        seconds: of the training stages.
        tokens_per_sample: mean length of a text in student tokens (teacher tokens without a student).
    """

    memory_bytes: int
    seconds: float
    tokens_per_sample: float


class Plan(_Part):
    """Everything that a run will do.

    Attributes:
        layer_maps: teacher name → {student layer: teacher layer}.
        precision: what the training computes in.
        notes: what the user should know before it begins.
    """

    format: Literal[1] = 1
    request: dict[str, Any]
    recipe: Recipe
    task: TaskPlan
    teachers: list[TeacherPlan]
    student: StudentPlan | None
    layer_maps: dict[str, dict[int, int]]
    stages: list[StagePlan]
    precision: Literal["fp32", "bf16", "fp16"]
    device: str
    baseline: bool
    estimate: Estimate | None
    versions: dict[str, str]
    notes: list[str]

    def teacher(self, name: str) -> TeacherPlan:
        """The teacher of that name."""
        return next(teacher for teacher in self.teachers if teacher.name == name)

    @property
    def teacher_names(self) -> list[str]:
        """The teachers' names, in order."""
        return [teacher.name for teacher in self.teachers]

    @property
    def student_or_fail(self) -> StudentPlan:
        """The student of a distillation; a plan without one (co-finetuning) must not be asked."""
        assert self.student is not None
        return self.student

    @property
    def to_cofinetune(self) -> list[TeacherPlan]:
        """Teachers that have no trained head yet."""
        return [teacher for teacher in self.teachers if teacher.kind == "cofinetune"]

    def stages_of(self, phase: Literal["cofinetune", "distill"]) -> list[StagePlan]:
        """The stages in which one model is trained."""
        return [stage for stage in self.stages if stage.phase == phase]
